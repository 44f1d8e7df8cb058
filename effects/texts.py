"""The texts of a run's calls. The state names them by hash; here they are, while they matter.

1. A prompt is known from the pause that asked it to the end of the root's cell: no call and no
   sub-run outlives that.
2. A conversation only grows: the messages of a frame that were made for its last turn are used
   again for the next.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from rlm_fsm import compaction, history, typed
from rlm_fsm.effect import CallModel
from rlm_fsm.event import CodeExecuted, CodePaused, Event
from rlm_fsm.ids import ROOT, FrameId
from rlm_fsm.state import RunState
from rlm_fsm.values import text_hash


@dataclass(slots=True)
class Texts:
    """What the calls of one run are told."""

    _prompts: dict[str, str] = field(default_factory=dict[str, str])
    """By hash."""
    _sent: dict[FrameId, list[dict[str, str]]] = field(
        default_factory=dict[FrameId, list[dict[str, str]]]
    )

    def remember(self, event: Event) -> None:
        """Keep the prompts of host calls."""
        if isinstance(event, CodePaused):
            for call in event.calls:
                for text in {call.prompt, call.text}:  # a sub-run works on the text alone
                    self._prompts[text_hash(text)] = text
        elif isinstance(event, CodeExecuted) and event.frame == ROOT:
            self._prompts.clear()

    def forget(self, open_frames: Collection[FrameId]) -> None:
        """Drop the conversations of frames that are gone."""
        for gone in [frame for frame in self._sent if frame not in open_frames]:
            del self._sent[gone]

    def prompt(self, digest: str) -> str:
        """The prompt with this hash."""
        return self._prompts[digest]

    def messages(self, state: RunState, effect: CallModel) -> list[dict[str, str]]:
        """The messages of a call, as chat endpoints take them."""
        if effect.purpose == "subcall":
            asking = state.frames.get(effect.frame)
            prompt = typed.prompt_of(asking, effect.call_id) or self._prompts[effect.prompt.hash]
            return [m.as_dict() for m in history.subcall_messages(prompt, state.options)]
        frame = state.frames[effect.frame]
        if effect.purpose == "compaction":
            return [message.as_dict() for message in compaction.messages(frame)]
        messages = history.messages(frame, state.options)
        if messages is not frame.messages:
            return [message.as_dict() for message in messages]
        sent = self._sent.setdefault(frame.id, [])
        sent += [message.as_dict() for message in frame.messages[len(sent) :]]
        return sent.copy()
