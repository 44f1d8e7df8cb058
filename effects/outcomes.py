"""What a session gave, as the event that ends its effect."""

from effects.repls.base import Paused
from effects.typed import judged
from rlm_fsm.effect import ReadVariable, ResumeCode, RunCode
from rlm_fsm.event import CodeExecuted, CodePaused, VariableRead
from rlm_fsm.values import CodeResult, ReadResult


def paused(
    effect: RunCode | ResumeCode,
    result: Paused,
    now_s: float | None,
    elapsed_s: float,
    clock_s: float,
) -> CodePaused:
    """A cell asks the host something. `now_s` is the time of day, where it asks for that."""
    return CodePaused(
        frame=effect.frame,
        call_id=effect.call_id,
        calls=judged(result.calls),
        parallel=result.parallel,
        now_s=now_s,
        elapsed_s=elapsed_s,
        clock_s=clock_s,
    )


def executed(
    effect: RunCode | ResumeCode,
    result: CodeResult,
    *,
    rebuilt: bool,
    elapsed_s: float,
    clock_s: float,
) -> CodeExecuted:
    """A cell ended."""
    return CodeExecuted(
        frame=effect.frame,
        call_id=effect.call_id,
        stdout=result.stdout,
        stdout_chars=result.stdout_chars,
        error=result.error,
        watched=result.watched,
        repl_lost=result.repl_lost,
        final=result.final,
        variables=result.variables,
        more_variables=result.more_variables,
        rebuilt=rebuilt,
        elapsed_s=elapsed_s,
        clock_s=clock_s,
    )


def variable_read(effect: ReadVariable, read: ReadResult) -> VariableRead:
    """A variable was read."""
    return VariableRead(
        frame=effect.frame,
        call_id=effect.call_id,
        name=effect.name,
        text=read.text,
        error=read.error,
        names=read.names,
    )
