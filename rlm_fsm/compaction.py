"""Compaction: the middle of a conversation is summed up by the model, where trimming would drop it.

Rules:

1. It is due before a turn whose request would be more than `Options.compaction` of the room, when
   the middle is worth it (`WORTH`). The middle is what stands between the task and the newest
   exchanges (`TAIL`), which stay as they are.
2. The request is what is sent of the conversation and one more message, so that a prompt cache
   answers for most of it. It is a paid call: announced, reserved, settled; no turn is used up.
3. It is made only where the budget has room for it and for the turn that follows.
4. The summary is sent after the task, as the model's own message, and `Frame.skipped` moves on. The
   next summary takes its place. `Frame.messages` never changes.
5. Each ends in a `HistoryCompacted`, also where nothing came of it; then the turn is taken, and
   trimming keeps the limit as ever. After a failure, the next is due when trimming has dropped
   something; after a summary that saved less than `SAVED`, none is. A frame has so many at most
   (`Options.compaction_limit`), and each takes a new exchange: no compaction follows another.
"""

from rlm_fsm import history
from rlm_fsm.calls import Step, enqueue, no_room, no_summary, put, start
from rlm_fsm.effect import CallModel, Record
from rlm_fsm.event import HistoryCompacted
from rlm_fsm.evolve import evolve
from rlm_fsm.history import HEAD
from rlm_fsm.ids import compaction_id
from rlm_fsm.needs import breach, need, takes_a_place
from rlm_fsm.options import Options
from rlm_fsm.profile import fill
from rlm_fsm.state import Frame, Phase, RunState
from rlm_fsm.values import Message, estimate_tokens, utf8_bytes

TAIL = 0.25
"""Share of the room beside the head that the newest exchanges fill which are kept as they are."""
WORTH = 0.4
"""Share of the request that the middle must be: a call for less would save little."""
SAVED = 0.2
"""Share of the request that a summary must save to be used."""
_WORDS_PER_TOKEN = 0.6
"""What a model is told of the completion limit: fewer words than it could be, so that the summary
isn't cut. English has about 0.75."""


def prepared(frame: Frame, options: Options) -> Frame | None:
    """The frame that is to be compacted before its next turn; None when that isn't due.

    Where the request for the summary would be larger than `max_history_tokens`, the oldest
    exchanges are left out of it.
    """
    limit = options.max_history_tokens
    if not options.compaction or options.rules < 2 or not options.conversation_history:
        return None
    if frame.no_compaction or frame.compactions >= options.compaction_limit:
        return None
    if _next_tokens(frame) <= options.compaction * limit:
        return None
    if len(frame.messages) <= max(HEAD, frame.compacted_at):
        return None
    asked = fill(
        options.profile.compact, words=max(1, int(options.compaction_max_tokens * _WORDS_PER_TOKEN))
    )
    fitting = _fitting(frame, limit, utf8_bytes(asked))
    if fitting is None or _middle(fitting, limit) < WORTH * _next_tokens(fitting):
        return None
    return evolve(fitting, compacting=asked, compactions=frame.compactions + 1)


def begin(state: RunState, frame: Frame, turn: CallModel, *, before: Frame) -> Step:
    """Ask for the summary of a `prepared` frame; `turn` is the call that waits for it.

    Where the budget has no room, nothing is left out of the frame `before` either.
    """
    frame = evolve(frame, phase=Phase.COMPACTING)
    call = CallModel(
        frame=frame.id,
        call_id=compaction_id(frame.id, frame.compactions),
        purpose="compaction",
        prompt=history.extended(frame, _request(frame)),
        max_tokens=state.options.compaction_max_tokens,
        adapter=frame.adapter,
    )
    takes = need(state, call)
    beyond = breach(state, call, takes) or breach(state, turn, takes.plus(need(state, turn)))
    if beyond is not None:
        whole = history.skipping(frame, before.skipped, before.summary)
        return failed(put(state, whole), call, no_room(beyond))
    if takes_a_place(call):
        return enqueue(put(state, frame), (call,), first=True)
    return start(state, call, frame)


def messages(frame: Frame) -> tuple[Message, ...]:
    """What the call for a summary is sent."""
    return (*history.sent(frame), _request(frame))


def summed_up(state: RunState, frame: Frame, call: CallModel, text: str) -> Step:
    """Put a summary in the place of the middle, if it says anything and saves enough."""
    if not text:
        return failed(state, call, "the reply was empty")
    options, before = state.options, _next_tokens(frame)
    skipped = _tail(frame, options.max_history_tokens) - HEAD
    words = options.profile
    summary = (
        Message("assistant", fill(words.summary, summary=text)),
        Message("user", fill(words.compacted, count=skipped)),
    )
    shorter = history.skipping(frame, skipped, summary)
    after = _next_tokens(shorter)
    if after > (1 - SAVED) * before:
        state = put(state, evolve(frame, no_compaction="for_good"))
        return failed(state, call, f"it saves too little: {after:,} of {before:,} tokens are left")
    event = HistoryCompacted(
        frame=frame.id,
        call_id=call.call_id,
        messages=skipped,
        tokens_before=before,
        tokens_after=after,
    )
    return put(state, shorter), (Record(event=event),)


def failed(state: RunState, call: CallModel, why: str) -> Step:
    """Derive that nothing came of it."""
    return state, (Record(event=no_summary(call, why)),)


def _request(frame: Frame) -> Message:
    return Message("user", frame.compacting)


def _next_tokens(frame: Frame) -> int:
    """The size of the next turn's request, by estimate."""
    return estimate_tokens(frame.bytes + utf8_bytes(frame.news))


def _middle(frame: Frame, limit: int) -> int:
    """Tokens of what a summary would stand for."""
    middle = frame.messages[HEAD + frame.skipped : _tail(frame, limit)]
    return sum(utf8_bytes(message.content) for message in middle) // 4


def _tail(frame: Frame, limit: int) -> int:
    """Where the messages begin that stay as they are: with a reply, at the latest the newest."""
    everything = frame.messages
    start = len(everything) - 1
    head = sum(utf8_bytes(message.content) for message in everything[:HEAD])
    room = (limit - estimate_tokens(head)) * TAIL * 4 - utf8_bytes(everything[start].content)
    room -= utf8_bytes(frame.news)
    for index in range(start - 1, HEAD + frame.skipped - 1, -1):
        room -= utf8_bytes(everything[index].content)
        if room < 0:
            break
        if everything[index].role == "assistant":
            start = index
    return start


def _fitting(frame: Frame, limit: int, more: int) -> Frame | None:
    """The frame whose request with so many more bytes keeps the limit; None if it can't."""
    everything, start = frame.messages, HEAD + frame.skipped
    left = frame.bytes + more
    while estimate_tokens(left) > limit and start < len(everything) - 1:
        left -= utf8_bytes(everything[start].content)
        start += 1
        while start < len(everything) - 1 and everything[start].role != "assistant":
            left -= utf8_bytes(everything[start].content)
            start += 1
    return (
        None
        if estimate_tokens(left) > limit
        else history.skipping(frame, start - HEAD, frame.summary)
    )
