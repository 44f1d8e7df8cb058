"""Performing a run for the command line, and what its end means to whoever called.

Exit codes: 0 answered, 1 failed, 2 misuse (nothing was started), 3 partial, 4 waiting for
approvals, 130 cancelled.
"""

import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from effects.commands.choices import LIMITS
from effects.commands.interrupts import hear_no_interrupts, terminated_like_interrupted
from effects.commands.records import read_record
from effects.commands.terminal import Terminal
from effects.result import RunResult, usage_of
from effects.view.cut import head
from rlm_fsm.errors import LogError, ReplayDiverged, RunError
from rlm_fsm.event import Status
from rlm_fsm.ids import RunId
from rlm_fsm.numbers import counted
from rlm_fsm.state import RunState

if TYPE_CHECKING:
    from effects.tools import ApprovalRequest
    from effects.view.live import LiveView
    from effects.view.plain import PlainView

ANSWERED, FAILED, MISUSE, PARTIAL, WAITING, CANCELLED = 0, 1, 2, 3, 4, 130

_EXIT_CODES: dict[Status, int] = {
    "finished": ANSWERED,
    "partial": PARTIAL,
    "failed": FAILED,
    "cancelled": CANCELLED,
    "waiting": WAITING,
    "running": FAILED,  # its log failed, or its session didn't come back
}
_SHOWN_CHARS = 600
"""How much is shown of what differs."""


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

    @property
    def approvals(self) -> "tuple[ApprovalRequest, ...]":
        """The calls of tools for which a run that waits asks a person."""
        from effects.tools.requests import requests

        if self.state.status != "waiting":
            return ()
        return requests(RunId(self.run_id), read_record(self.log, self.run_id).events)

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
            "approvals": [asdict(item) for item in self.approvals],
            "log": self.log,
        }


def perform(act: Callable[[], RunResult], view: "LiveView | PlainView", log: str) -> Conclusion:
    """Run to the end, whatever end it is. `act` must have `view` as its listener.

    What is wrong before anything was appended is raised, Ctrl-C included.
    """
    error: str | None = None
    follower = view.follower
    with view, terminated_like_interrupted():
        try:
            result = act()
            if not follower.run_id:  # it was over: there was nothing to append
                state = read_record(log, result.run_id).state
                return Conclusion(run_id=result.run_id, state=state, log=log)
        except (RunError, LogError) as failure:
            if not follower.run_id:
                raise
            error = str(failure)
        except ReplayDiverged as diverged:
            if not follower.run_id:
                raise
            error = difference(diverged)
            if "on_changed_output" in str(diverged):
                error += "\nTo go on with what it gives now: --accept-changed-output"
        except KeyboardInterrupt:
            if not follower.run_id:
                raise
            error = f"cancelled. The run {follower.run_id} is in the log {log}."
        finally:
            hear_no_interrupts()
    return Conclusion(run_id=follower.run_id, state=follower.state, log=log, error=error)


def report(end: Conclusion, terminal: Terminal, *, default_log: str) -> int:
    """Tell how a run ended; the exit code."""
    state = end.state
    if terminal.wants_json:
        terminal.json(end.to_dict())
    elif state.status in ("finished", "partial"):
        terminal.answer(state.output)
    if state.uncertain and not terminal.is_quiet:
        terminal.tell(
            f"{counted(state.uncertain, 'call')} in flight when the run stopped: each may have "
            "been paid for without an outcome"
        )
    show = show_command(end, default_log)
    steps = f"\nSteps: {show}\nGo on: {resume_command(end.run_id, state, end.log, default_log)}"
    is_gone = end.log == ":memory:"
    if is_gone:
        steps = ""
    match state.status:
        case "finished":
            if not terminal.is_quiet and not is_gone:
                terminal.tell(f"see its steps with: {show}")
        case "partial":
            best = "the best answer so far" if state.output.strip() else "no answer so far"
            terminal.tell(f"partial: the limit {state.limit} is reached; {best}.{steps}")
        case "waiting":
            terminal.tell(f"{_waiting(end, default_log)}{steps}")
        case _:
            why = end.error or f"{state.error}. The run {end.run_id} is in the log {end.log}."
            terminal.tell(f"{why}{steps}")
    return end.exit_code


def show_command(end: Conclusion, default_log: str) -> str:
    """The command that shows the run."""
    return f"rlm-fsm show {end.run_id}{log_option(end.log, default_log)}"


def resume_command(run_id: str, state: RunState, log: str, default_log: str) -> str:
    """The command that goes on with a run; under a larger limit, if one ended it."""
    tools = " --tools MODULE:NAME" if state.options.tools else ""
    return f"rlm-fsm resume {run_id}{_larger(state)}{tools}{log_option(log, default_log)}"


def difference(diverged: ReplayDiverged) -> str:
    """Where a run differs from its log, in lines; what differs is cut."""
    run = f"run {diverged.run_id}" if diverged.run_id else "the run"
    return (
        f"{run} diverges at event {diverged.seq}:\n"
        f"  expected: {head(_text(diverged.expected), _SHOWN_CHARS)}\n"
        f"  found:    {head(_text(diverged.found), _SHOWN_CHARS)}"
    )


def _waiting(end: Conclusion, default_log: str) -> str:
    """Which calls wait for a person, and how to answer."""
    from effects.commands.approve import lines

    told = "\n".join(f"  {line}" for line in lines(end.approvals))
    option = log_option(end.log, default_log)
    return (
        f"the run {end.run_id} waits for approvals:\n{told}\n"
        f"Approve: rlm-fsm approve {end.run_id}{option} (--deny --reason TEXT to refuse)"
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else repr(value)


def log_option(log: str, default_log: str) -> str:
    """What names the log on a command line; nothing for the one that is looked into anyway."""
    return "" if log == default_log else f" --log {shlex.quote(log)}"


def _larger(state: RunState) -> str:
    option = next((ours for ours, name in LIMITS.items() if name == state.limit), None)
    allowed = None if option is None else getattr(state.options.policy, LIMITS[option])
    if option is None or allowed is None:
        return ""
    # The call for the best answer took a turn too: one more than allowed would not do.
    larger = max(2 * allowed, allowed + 2) if isinstance(allowed, int) else 2 * allowed or 1.0
    typed = f"{Decimal(str(larger)).normalize():f}"  # without an exponent
    return f" --{option.replace('_', '-')} {typed}"
