r"""Golden transcripts: what the machine does, as a person reads it.

A file in `golden/` is a list of commands, each followed by what it caused. To add a case, write
the commands; to write down what they cause, run `python tests/test_golden.py --rewrite` and READ
the difference: commit it only if you understand why it changed.

    start [option=value ...]            options of `Options` and `Policy`, Python literals
    reply CALL TEXT                     a model call is answered; \n is a line break
    reply CALL TEXT ; CALL TEXT         several that arrive together
    fail CALL KIND                      a model call fails
    hit CALL TEXT                       a cache answers a model call
    pause FRAME PROMPT | PROMPT ...     the cell of a frame asks; also `pause1` (one by one)
                                        and `recurse` (sub-runs)
    ran FRAME OUTPUT                    the cell of a frame ends; also `raised FRAME MESSAGE`
    watched FRAME TEXT                  the cell ends, with this value of the watched variable
    final FRAME FORM TEXT               the cell ends with a final answer that its code gave; also
                                        `late FRAME FORM TEXT`: it raised afterwards
    read FRAME TEXT                     the variable is read; also `missing FRAME NAMES`
    told FRAME                          the newest message to the model, as it stands
    sent FRAME                          what is sent of the conversation, the head of each message
    typed FRAME PROMPT | PROMPT ...     the cell asks, with a schema
    fits CHECK VALUE                    an answer, or the reply of a call with a schema, fits
    misfit CHECK PATH MESSAGE           it doesn't
    budget FRAME                        the cell of a frame asks what is left
    tools FRAME NAME JSON | NAME JSON   the cell calls tools; started with tools=True, a run has
                                        `look`, which may be called twice, and `send`, which needs
                                        an approval
    returned CALL JSON                  a tool returns; also `broke CALL MESSAGE`: it failed
    approved CALL                       a person agrees; also `denied CALL REASON`
    nobody CALL                         nobody is there to ask
    goes on                             the run is resumed
    deadline SECONDS                    the run's time is over
    cancel
    resume                              forget everything, fold the log, list what is owed
"""

import ast
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from machine import Machine, replied

from effects.view.events import compacted
from rlm_fsm.effect import (
    AskApproval,
    CallModel,
    CallTool,
    CheckAnswer,
    Effect,
    ReadVariable,
    ResumeCode,
    RunCode,
)
from rlm_fsm.event import CodeExecuted, DeadlinePassed, Event, RunResumed
from rlm_fsm.fold import fold, pending
from rlm_fsm.history import sent
from rlm_fsm.policy import Policy
from rlm_fsm.profiles import PROFILES
from rlm_fsm.tool_calls import answered
from rlm_fsm.toolspec import ToolSpec
from rlm_fsm.values import CodeError, GivenFinal, Problem

GOLDEN = Path(__file__).parent / "golden"
TOOLS = (
    ToolSpec(name="look", idempotent=True),
    ToolSpec(name="send", needs_approval=True, idempotent=False),
)
POLICY = {field.name for field in fields(Policy)}


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.txt")), ids=lambda path: path.stem)
def test_the_machine_does_what_the_transcript_says(path: Path):
    text = path.read_text(encoding="utf-8")
    assert played(text) == text, "read the docstring of this file before you rewrite a transcript"


def played(text: str) -> str:
    """The transcript with what its commands cause."""
    machine = Machine()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("> "):
            lines += [line, *play(machine, line[2:])]
        elif not line.startswith("  "):
            lines.append(line)
    return "\n".join(lines) + "\n"


def play(machine: Machine, command: str) -> list[str]:
    """Do one command; the lines that say what it caused."""
    verb, _, rest = command.partition(" ")
    frame, _, text = rest.replace("\\n", "\n").partition(" ")
    match verb:
        case "start":
            given = dict(pair.split("=", 1) for pair in rest.split())
            values = {name: ast.literal_eval(value) for name, value in given.items()}
            if "profile" in values:
                values["profile"] = PROFILES[values["profile"]]
            policy = Policy(**{name: values.pop(name) for name in list(values) if name in POLICY})
            if values.pop("tools", False):
                values["tools"] = TOOLS
            machine.start(policy=policy, **values)
        case "reply":
            parts = [part.split(" ", 1) for part in rest.replace("\\n", "\n").split(" ; ")]
            machine.send(*(replied(machine.call(call), said) for call, said in parts))
        case "fail":
            machine.fail(frame, text)
        case "hit":
            machine.send(replied(machine.call(frame), text, 0, cache_hit=True))
        case "pause" | "pause1" | "recurse":
            recursive = True if verb == "recurse" else None
            prompts = text.split(" | ")
            machine.pause(*prompts, frame=frame, parallel=verb != "pause1", recursive=recursive)
        case "ran":
            machine.ran(text, frame=frame)
        case "raised":
            machine.ran(error=CodeError(kind="Error", message=text), frame=frame)
        case "watched":
            (effect,) = (e for e in pending(machine.state) if isinstance(e, RunCode))
            machine.ran(frame=frame, watched=dict.fromkeys(effect.watch, text))
        case "final" | "late":
            form, _, text = text.partition(" ")
            error = CodeError(kind="Error", message="boom") if verb == "late" else None
            machine.ran(frame=frame, error=error, final=GivenFinal(form=form, text=text))
        case "told":
            told = machine.frame(frame).messages[-1]
            return [f"  | {line}".rstrip() for line in told.content.split("\n")]
        case "sent":
            heads = ((m.role, m.content.split("\n")[0][:72]) for m in sent(machine.frame(frame)))
            return [f"  | {role}: {head}".rstrip() for role, head in heads]
        case "read":
            machine.read(text, frame=frame)
        case "missing":
            machine.read(None, frame=frame, names=tuple(text.split()))
        case "typed":
            machine.pause(*text.split(" | "), frame=frame, schema='{"type":"integer"}')
        case "fits":
            machine.checked(frame, text)
        case "misfit":
            path, _, message = text.partition(" ")
            machine.checked(frame, problems=(Problem(path=path, message=message, found="?"),))
        case "budget":
            machine.pause("", frame=frame, kind="budget")
        case "tools":
            machine.call_tools(*(part.split(" ", 1) for part in text.split(" | ")), frame=frame)
        case "returned" | "broke" | "approved" | "denied" | "nobody":
            machine.of_tool(verb, frame, text)
        case "goes":
            machine.send(RunResumed())
        case "deadline":
            machine.send(DeadlinePassed(clock_s=float(frame)))
        case "cancel":
            machine.cancel()
        case "resume":
            state = fold(machine.log)
            assert state == machine.state
            return [f"  owed: {effect_line(effect)}" for effect in pending(state)]
        case _:
            raise ValueError(f"unknown command: {command}")
    committed = [f"  {event_line(event)}" for event in machine.commits[-1]]
    started = [f"  -> {effect_line(effect)}" for effect in machine.effects]
    return [*committed, *started, f"  = {state_line(machine)}"]


def event_line(event: Event) -> str:
    """An event in a line: kind, call, and what it says."""
    said = {
        "ModelReplied": lambda: repr(event.text) + " from the cache" * event.cache_hit,
        "ModelFailed": lambda: event.error,
        "CodePaused": lambda: f"{len(event.calls)} calls",
        "ApprovalAsked": lambda: event.tool,
        "ApprovalGiven": lambda: answered(event),
        "ToolReturned": lambda: event.value,
        "ToolFailed": lambda: f"{event.error}: {event.message}",
        "CodeExecuted": lambda: executed_line(event),
        "VariableRead": lambda: repr(event.text),
        "AnswerChecked": lambda: event.value or "misfit",
        "GuardTripped": lambda: event.guard,
        "HistoryCompacted": lambda: compacted(event),
        "LimitReached": lambda: f"{event.limit} {event.used:g} of {event.allowed:g}",
        "RunFinished": lambda: f"{event.status} {event.output!r} {event.error or ''}".rstrip(),
    }.get(type(event).__name__, lambda: "")()
    return " ".join(filter(None, (type(event).__name__, getattr(event, "call_id", ""), said)))


def executed_line(event: CodeExecuted) -> str:
    """What a cell gave."""
    said = repr(str(event.error) if event.error else event.stdout)
    return f"{said} {event.final.form} {event.final.text!r}" if event.final else said


def effect_line(effect: Effect) -> str:
    """An effect in a line."""
    match effect:
        case CallModel():
            return f"CallModel {effect.call_id} {effect.purpose} {effect.adapter}"
        case RunCode():
            return f"RunCode {effect.call_id} {effect.code!r}"
        case ResumeCode():
            outcomes = ", ".join(f"{o.kind} {o.text!r}" for o in effect.outcomes)
            return f"ResumeCode {effect.call_id} [{outcomes}]"
        case ReadVariable():
            return f"ReadVariable {effect.call_id} {effect.name}"
        case CheckAnswer():
            return f"CheckAnswer {effect.call_id} {effect.text!r}"
        case CallTool() | AskApproval():
            return f"{type(effect).__name__} {effect.call_id} {effect.tool}"
        case _:
            return repr(effect)


def state_line(machine: Machine) -> str:
    """Where the run stands."""
    state = machine.state
    frames = " ".join(f"{name}:{state.frames[name].phase.name}" for name in sorted(state.frames))
    waiting = f" queued {len(state.queue)}" if state.queue else ""
    spent = state.spent
    return f"{state.status} {frames}{waiting} steps {spent.steps} subcalls {spent.subcalls}"


def main() -> None:
    for path in sorted(GOLDEN.glob("*.txt")):
        path.write_text(played(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__" and "--rewrite" in sys.argv:
    main()
