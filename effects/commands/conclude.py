"""Performing a run for the command line, and what its end means to whoever called.

Exit codes: 0 answered, 1 failed, 2 misuse (nothing was started), 3 partial, 130 cancelled.
"""

import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from effects.commands.terminal import Terminal
from effects.context import Context
from effects.result import usage_of
from effects.rlm import RLM
from rlm_fsm.errors import LogError, RunError
from rlm_fsm.event import Status
from rlm_fsm.state import RunState

if TYPE_CHECKING:
    from effects.view.live import LiveView
    from effects.view.plain import PlainView

ANSWERED, FAILED, MISUSE, PARTIAL, CANCELLED = 0, 1, 2, 3, 130

_EXIT_CODES: dict[Status, int] = {
    "finished": ANSWERED,
    "partial": PARTIAL,
    "failed": FAILED,
    "cancelled": CANCELLED,
    "running": FAILED,  # its log failed
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """How a run ended."""

    run_id: str
    state: RunState
    log: str
    error: str | None = None
    """What to tell people, for a run that did not answer."""

    @property
    def exit_code(self) -> int:
        """What the program ends with."""
        return _EXIT_CODES[self.state.status]

    def to_dict(self) -> dict[str, Any]:
        """The run as a JSON document."""
        state = self.state
        return {
            "run_id": self.run_id,
            "status": state.status,
            "output": state.output,
            "limit": state.limit,
            "error": state.error or self.error,
            "usage": asdict(usage_of(state)),
            "cost_usd": state.spent.cost_usd,
            "log": self.log,
        }


def perform(
    rlm: RLM, query: str, context: Context, view: "LiveView | PlainView", log: str
) -> Conclusion:
    """Run to the end, whatever end it is. `rlm` must have `view` as its listener.

    What is wrong before the run began is raised, Ctrl-C included.
    """
    error: str | None = None
    with view:
        try:
            rlm.run(query, context)
        except (RunError, LogError) as failure:
            if not view.follower.run_id:
                raise
            error = str(failure)
        except KeyboardInterrupt:
            if not view.follower.run_id:
                raise
            error = f"cancelled. The run {view.follower.run_id} is in the log {log}."
    follower = view.follower
    return Conclusion(run_id=follower.run_id, state=follower.state, log=log, error=error)


def report(end: Conclusion, terminal: Terminal, *, default_log: str) -> int:
    """Tell how a run ended; the exit code."""
    state = end.state
    if terminal.wants_json:
        terminal.json(end.to_dict())
    elif state.status in ("finished", "partial"):
        terminal.answer(state.output)
    show = show_command(end, default_log)
    match state.status:
        case "finished":
            if not terminal.is_quiet:
                terminal.tell(f"see its steps with: {show}")
        case "partial":
            best = "the best answer so far" if state.output.strip() else "no answer so far"
            terminal.tell(f"partial: the limit {state.limit} is reached; {best}.\nSteps: {show}")
        case _:
            why = end.error or f"{state.error}. The run {end.run_id} is in the log {end.log}."
            terminal.tell(f"{why}\nSteps: {show}")
    return end.exit_code


def show_command(end: Conclusion, default_log: str) -> str:
    """The command that shows the run."""
    log = "" if end.log == default_log else f" --log {shlex.quote(end.log)}"
    return f"rlm-fsm show {end.run_id}{log}"
