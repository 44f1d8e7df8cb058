"""A run driven by hand: what the tests of the core stand on.

`Machine` plays the interpreter without a world: outcomes are passed in, commits and effects are
kept for the asserts.
"""

from dataclasses import dataclass, field
from typing import Any

from rlm_fsm.effect import CallModel, Effect, ReadVariable, ResumeCode, RunCode
from rlm_fsm.event import (
    AnswerChecked,
    ApprovalGiven,
    ApprovalPostponed,
    Cancelled,
    CodeExecuted,
    CodePaused,
    Event,
    ModelFailed,
    ModelReplied,
    ReplFailed,
    RunStarted,
    ToolFailed,
    ToolReturned,
    VariableRead,
)
from rlm_fsm.fold import advance
from rlm_fsm.ids import CallId, frame_of
from rlm_fsm.options import Options
from rlm_fsm.policy import Policy
from rlm_fsm.state import INITIAL, Frame, RunState
from rlm_fsm.values import CodeError, ContextInfo, HostCall, Usage

TEXT = ContextInfo(kind="string", chars=1_000, documents=1, lengths=(1_000,), digest="d")


@dataclass
class Machine:
    """A run, its log, and the effects of the newest commit."""

    state: RunState = INITIAL
    log: list[Event] = field(default_factory=list)
    commits: list[tuple[Event, ...]] = field(default_factory=list)
    effects: tuple[Effect, ...] = ()

    def send(self, *events: Event) -> tuple[Effect, ...]:
        """Commit events that arrived together."""
        self.state, committed, self.effects = advance(self.state, events)
        self.log += committed
        self.commits.append(committed)
        return self.effects

    def frame(self, name: str = "0") -> Frame:
        return self.state.frames[name]

    def start(self, *, policy: Policy | None = None, **options: Any) -> tuple[Effect, ...]:
        return self.send(
            RunStarted(
                query="What?",
                context=TEXT,
                options=Options(policy=policy or Policy(), **options),
            )
        )

    def reply(self, text: str, call: str = "", tokens: int = 10, **fields: Any):
        """The model call `call`, or the only one in flight, is answered."""
        effect = self.call(call)
        return self.send(replied(effect, text, tokens, **fields))

    def fail(self, call: str = "", error: str = "server"):
        effect = self.call(call)
        return self.send(
            ModelFailed(frame=effect.frame, call_id=effect.call_id, error=error, message="down")
        )

    def call(self, name: str = "") -> CallModel:
        """A model call in flight, by name; without one, the only one."""
        if name:
            return self.state.calls[name]
        (only,) = self.state.calls.values()
        return only

    def pause(self, *prompts: str, frame: str = "0", parallel: bool = True, **fields: Any):
        """The cell asks sub-models."""
        calls = tuple(HostCall(fn="llm_query", prompt=prompt, **fields) for prompt in prompts)
        cell = self.frame(frame).cell
        assert cell is not None
        return self.send(CodePaused(frame=frame, call_id=cell.id, calls=calls, parallel=parallel))

    def ran(self, stdout: str = "", *, frame: str = "0", error: CodeError | None = None, **fields):
        """The cell ends."""
        cell = self.frame(frame).cell
        assert cell is not None
        return self.send(
            CodeExecuted(
                frame=frame,
                call_id=cell.id,
                stdout=stdout,
                stdout_chars=len(stdout),
                error=error,
                **fields,
            )
        )

    def repl_fails(self, frame: str = "0"):
        return self.send(ReplFailed(frame=frame, call_id="x", message="no process"))

    def read(self, text: str | None, *, frame: str = "0", names: tuple[str, ...] = ()):
        """The variable is read, or missing."""
        name = self.frame(frame).reading
        assert name is not None
        return self.send(
            VariableRead(frame=frame, call_id=f"{frame}.r1", name=name, text=text, names=names)
        )

    def call_tools(self, *calls: list[str], frame: str = "0"):
        """The cell calls tools: names, each with its arguments as JSON."""
        cell = self.frame(frame).cell
        assert cell is not None
        made = tuple(
            HostCall(fn=name, prompt=text, dedupe=False, kind="tool") for name, text in calls
        )
        return self.send(CodePaused(frame=frame, call_id=cell.id, calls=made))

    def of_tool(self, how: str, call: str, text: str = ""):
        """A call of a tool ended, or a person was asked for it, in one of the ways below."""
        named = {"frame": frame_of(CallId(call)), "call_id": CallId(call)}
        match how:
            case "returned":
                return self.send(ToolReturned(**named, value=text))
            case "broke":
                return self.send(ToolFailed(**named, error="raised", message=text))
            case "nobody":
                return self.send(ApprovalPostponed(**named))
            case _:
                agreed = how == "approved"
                event = ApprovalGiven(**named, is_approved=agreed, reason=text, by="ann")
                return self.send(event)

    def checked(self, check: str, value: str | None = None, **fields: Any):
        """A check ends: the answer fits when there is a value."""
        frame = frame_of(CallId(check))
        return self.send(AnswerChecked(frame=frame, call_id=CallId(check), value=value, **fields))

    def cancel(self):
        return self.send(Cancelled(reason="enough"))


def replied(
    effect: CallModel, text: str, tokens: int = 10, usage: Usage | None = None, **fields: Any
) -> ModelReplied:
    """The reply to a call; without a usage, all its tokens are those of the prompt."""
    return ModelReplied(
        frame=effect.frame,
        call_id=effect.call_id,
        text=text,
        usage=usage or Usage(tokens, 0, tokens),
        **fields,
    )


def code(text: str) -> str:
    """A reply that is one block of code."""
    return f"```python\n{text}\n```"


def kinds(effects: tuple[Effect, ...]) -> list[str]:
    """What effects are, by name and call."""
    return [f"{type(effect).__name__} {effect.call_id}" for effect in effects]


def names(events: tuple[Event, ...]) -> list[str]:
    """Kinds of events."""
    return [type(event).__name__ for event in events]


BOOM = CodeError(kind="ValueError", message="boom", traceback="ValueError: boom")

__all__ = [
    "BOOM",
    "TEXT",
    "Machine",
    "ReadVariable",
    "ResumeCode",
    "RunCode",
    "code",
    "kinds",
    "names",
    "replied",
]
