"""What a model is sent: state -> messages of the next call.

Rules:

1. A frame's conversation is append-only, so that a provider's prompt cache hits: each request is
   the one before it plus what is new.
2. Trimming (`max_history_tokens`) drops whole exchanges from the oldest on, never the system
   message, the task, or the newest reply and its result. It drops in steps, down to half of the
   room (`KEPT`), so that the requests between two steps are prefixes of one another. What was
   dropped stays in `messages`, which the log and the REPL's ``history`` show whole. A summary of
   what was left out before (`compaction`) is dropped last.
3. A prompt is named by a chained hash over its messages. Appending costs the new message only,
   however long the conversation is.
4. Sizes are counted as in `bills`, by a quarter of the bytes: a text in Chinese isn't shorter for
   a model than one in English.
5. Runs of rules 1 trim anew each turn, by as little as possible.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256

from pyrsistent import PVector

from rlm_fsm.evolve import evolve
from rlm_fsm.options import Options
from rlm_fsm.state import Frame
from rlm_fsm.values import Message, TextRef, estimate_tokens, utf8, utf8_bytes

HEAD = 2
"""The messages that are always sent: system and task."""

KEPT = 0.5
"""Share of the room beside the head that a step of trimming leaves filled. Less would forget more,
more would break prefixes more often."""


def append(frame: Frame, message: Message, **changes: object) -> Frame:
    """The frame with one more message, and with other fields changed in the same copy."""
    name = extended(frame, message)
    return evolve(
        frame,
        **changes,
        messages=frame.messages.append(message),
        digest=name.hash,
        chars=name.chars,
        bytes=name.bytes,
        head_bytes=name.bytes if len(frame.messages) < HEAD else frame.head_bytes,
    )


def growth(frame: Frame) -> int:
    """Bytes that a turn has added to what is sent, on the whole; 0 before the first."""
    return max(0, frame.bytes - frame.head_bytes) // max(1, frame.turns_used)


def trimmed(frame: Frame, options: Options) -> Frame:
    """The frame that sends less, if what it sends has outgrown `max_history_tokens`."""
    limit = options.max_history_tokens
    if options.rules < 2 or not _sends_too_much(frame, options):
        return frame
    less = _dropped(frame, limit, frame.summary)
    if less.summary and _sends_too_much(less, options):
        less = _dropped(frame, limit, ())
    if less is frame or frame.no_compaction != "until_trimmed":
        return less
    return evolve(less, no_compaction="")


def skipping(frame: Frame, skipped: int, summary: tuple[Message, ...]) -> Frame:
    """The frame that leaves out so many messages after the head, with a summary in their place."""
    if (skipped, summary) == (frame.skipped, frame.summary):
        return frame
    name = _named(_sent(frame.messages, skipped, summary))
    return evolve(
        frame,
        skipped=skipped,
        summary=summary,
        digest=name.hash,
        chars=name.chars,
        bytes=name.bytes,
    )


def sent(frame: Frame) -> Sequence[Message]:
    """What is sent of the conversation, by rules 1 and 2."""
    if not frame.skipped and not frame.summary:
        return frame.messages
    return _sent(frame.messages, frame.skipped, frame.summary)


def extended(frame: Frame, message: Message) -> TextRef:
    """The name and size of what `sent` gives with one more message."""
    return _longer(TextRef(frame.digest, frame.chars, frame.bytes), message)


def prompt(frame: Frame, options: Options) -> TextRef:
    """The name and size of what `messages` would send."""
    if options.conversation_history and (options.rules >= 2 or not _sends_too_much(frame, options)):
        return TextRef(frame.digest, frame.chars, frame.bytes)
    return _named(messages(frame, options))


def messages(frame: Frame, options: Options) -> Sequence[Message]:
    """The messages of the frame's newest turn."""
    if not options.conversation_history:
        return _task_and_newest(frame)
    if options.rules < 2 and _sends_too_much(frame, options):
        room = options.max_history_tokens - _tokens(frame.messages[:HEAD])
        return _sent(frame.messages, _start(frame.messages, room) - HEAD, ())
    return sent(frame)


def subcall_messages(prompt_text: str, options: Options) -> Sequence[Message]:
    """The messages of a plain subcall."""
    return (Message("system", options.subcall_system), Message("user", prompt_text))


def _sends_too_much(frame: Frame, options: Options) -> bool:
    limit = options.max_history_tokens
    if not limit or len(frame.messages) <= HEAD or not options.conversation_history:
        return False
    return estimate_tokens(frame.bytes) > limit


def _task_and_newest(frame: Frame) -> Sequence[Message]:
    """Without history: system, and the task with the newest result in one message."""
    if len(frame.messages) <= HEAD:
        return frame.messages
    system, task = frame.messages[0], frame.messages[1]
    newest = frame.messages[-1]
    return (system, Message("user", f"{task.content}\n\n{newest.content}"))


def _start(everything: PVector[Message], room: int) -> int:
    """Where the newest exchanges begin that fit into `room` tokens; at least the newest one does.

    After the head come pairs of a reply and its result, so cutting at an even distance from the
    end keeps each result with the reply that caused it.
    """
    start = len(everything)
    while start - 2 >= HEAD:
        room -= _tokens(everything[start - 2 : start])
        if room < 0 and start < len(everything):
            break
        start -= 2
    return start


def _dropped(frame: Frame, limit: int, summary: tuple[Message, ...]) -> Frame:
    """The frame after a step of trimming, with this summary."""
    room = limit - _tokens(frame.messages[:HEAD]) - _tokens(summary)
    skipped = _start(frame.messages, int(room * KEPT)) - HEAD
    return skipping(frame, max(skipped, frame.skipped), summary)


def _sent(
    everything: PVector[Message], skipped: int, summary: tuple[Message, ...]
) -> Sequence[Message]:
    return (*everything[:HEAD], *summary, *everything[HEAD + skipped :])


def _tokens(some: Iterable[Message]) -> int:
    return sum(estimate_tokens(utf8_bytes(message.content)) for message in some)


def _named(some: Iterable[Message]) -> TextRef:
    """The chained hash over messages, and their size."""
    name = TextRef("", 0)
    for message in some:
        name = _longer(name, message)
    return name


def _longer(name: TextRef, message: Message) -> TextRef:
    """The next link of the chain: a hash over the one so far, the role and the content."""
    content = utf8(message.content)
    digest = sha256(f"{name.hash}\n{message.role}\n".encode() + content).hexdigest()
    return TextRef(digest, name.chars + len(message.content), name.bytes + len(content))
