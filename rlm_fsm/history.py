"""What a model is sent: state -> messages of the next call.

Rules:

1. A frame's conversation is append-only, so that a provider's prompt cache hits: each request is
   the one before it plus what is new.
2. Trimming (`max_history_tokens`) drops whole exchanges from the oldest on, never the system
   message, the task, or the newest result.
3. A prompt is named by a chained hash over its messages. Appending costs the new message only,
   however long the conversation is.
"""

from collections.abc import Sequence
from hashlib import sha256

from rlm_fsm.evolve import evolve
from rlm_fsm.options import Options
from rlm_fsm.state import Frame
from rlm_fsm.values import Message, TextRef, estimate_tokens

HEAD = 2
"""The messages that are always sent: system and task."""


def append(frame: Frame, message: Message, **changes: object) -> Frame:
    """The frame with one more message, and with other fields changed in the same copy."""
    return evolve(
        frame,
        **changes,
        messages=frame.messages.append(message),
        digest=_chain(frame.digest, message),
        chars=frame.chars + len(message.content),
    )


def prompt(frame: Frame, options: Options) -> TextRef:
    """The name and size of what `messages` would send."""
    if _sends_all(frame, options):
        return TextRef(frame.digest, frame.chars)
    digest, chars = "", 0
    for message in messages(frame, options):
        digest, chars = _chain(digest, message), chars + len(message.content)
    return TextRef(digest, chars)


def messages(frame: Frame, options: Options) -> Sequence[Message]:
    """The messages of the frame's newest turn."""
    if not options.conversation_history:
        return _task_and_newest(frame)
    if _sends_all(frame, options):
        return frame.messages
    return _trimmed(frame, options.max_history_tokens)


def subcall_messages(prompt_text: str, options: Options) -> Sequence[Message]:
    """The messages of a plain subcall."""
    return (Message("system", options.subcall_system), Message("user", prompt_text))


def _sends_all(frame: Frame, options: Options) -> bool:
    if not options.conversation_history:
        return False
    limit = options.max_history_tokens
    return limit == 0 or len(frame.messages) <= HEAD or estimate_tokens(frame.chars) <= limit


def _task_and_newest(frame: Frame) -> Sequence[Message]:
    """Without history: system, and the task with the newest result in one message."""
    if len(frame.messages) <= HEAD:
        return frame.messages
    system, task = frame.messages[0], frame.messages[1]
    newest = frame.messages[-1]
    return (system, Message("user", f"{task.content}\n\n{newest.content}"))


def _trimmed(frame: Frame, max_tokens: int) -> Sequence[Message]:
    """Head, and as many of the newest exchanges as fit; at least the newest message.

    After the head come pairs of a reply and its result, so cutting at an even distance from the
    end keeps each result with the reply that caused it.
    """
    everything = frame.messages
    room = max_tokens - sum(estimate_tokens(len(m.content)) for m in everything[:HEAD])
    start = len(everything)
    while start - 2 >= HEAD:
        pair = everything[start - 2 : start]
        room -= sum(estimate_tokens(len(message.content)) for message in pair)
        if room < 0 and start < len(everything):
            break
        start -= 2
    return (*everything[:HEAD], *everything[start:])


def _chain(digest: str, message: Message) -> str:
    """The next link: the digest so far, the role and the content."""
    content = message.content.encode("utf-8", "surrogatepass")
    return sha256(f"{digest}\n{message.role}\n".encode() + content).hexdigest()
