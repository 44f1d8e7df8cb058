"""What is asked of the sandbox once a cell has ended: its final answer, and its variables.

`FINAL_VAR` is looked up here and not when it is called: the sandbox can't be asked for a variable
while a call waits.
"""

from collections.abc import Callable
from typing import Any, cast

from effects.repls import _finals, _summaries
from effects.repls._finals import Signal
from effects.repls._monty_calls import VALUES
from effects.repls._monty_shims import MODULE_KINDS
from rlm_fsm.values import CodeError, GivenFinal, Variable

_VARIABLES = "_rlm_variables"
"""Key of what is told of the variables."""
PRELUDE = f"""{_summaries.SOURCE}
def _rlm_is_protocol(value):
    return isinstance(value, dict) and "content" in value and "ready" in value
def _rlm_is_unset(value):
    empty = isinstance(value, (list, dict, tuple, set, frozenset)) and not value
    return value is None or empty or type(value).__name__ in {_finals.NO_VALUES!r}
def _rlm_told(names):
    found = {{}}
    for name, value in names.items():
        if name[0] != "_" and name not in _rlm_own:
            kind = type(value).__name__
            found[name] = (kind, _rlm_summary(value) if kind != "module" else "")
    return {{{_VARIABLES!r}: found}}
"""
_OWN = "_rlm_own = {{{}}}"
TOLD = "_rlm_told(locals())"
"""Expression that tells of the variables, at the top level. A cell that raises nothing ends with
it: one more thing to feed would take as long as a small cell."""
_IS_READY = "isinstance(answer, dict) and bool(answer.get('ready'))"
_TAKE = "answer['ready'] = False\nanswer.get('content', '')"
_HOLDERS = "[k for k, v in locals().items() if type(v) is str and v == _rlm_asked]"
_UNUSED = _summaries.summary(_finals.fresh_answer())

Evaluate = Callable[..., Any]
"""Evaluates an expression of the sandbox, with values bound before: (expression, inputs=None)."""


def told_at_end(output: object) -> object:
    """What a cell's last value tells of the variables; None where it didn't end with `TOLD`."""
    is_told = isinstance(output, dict) and list(cast(dict[object, object], output)) == [_VARIABLES]
    return cast(dict[str, object], output)[_VARIABLES] if is_told else None


def own_names(names: frozenset[str]) -> str:
    """Source that tells the sandbox which names are the runtime's for good."""
    return _OWN.format(", ".join([repr(name) for name in sorted(names - _finals.SOFT)]))


class Ends:
    """Asks for one session. Raises what the sandbox raises."""

    def __init__(self, evaluate: Evaluate, *, variables: str, most: int) -> None:
        self._evaluate = evaluate
        self._most = most
        self._tracker = _summaries.Tracker(variables)

    @property
    def seen(self) -> dict[str, str]:
        """How the variables looked when they were told of last, by name."""
        return self._tracker.seen

    @seen.setter
    def seen(self, seen: dict[str, str]) -> None:
        self._tracker.seen = seen

    def final(
        self, signal: Signal | None, *, may_answer: bool, hidden: frozenset[str]
    ) -> tuple[GivenFinal | None, CodeError | None]:
        """The final answer that the cell has given, and why it can't be one.

        `may_answer`: whether any code so far has named ``answer``. `hidden` are the names of the
        runtime that code has not taken.
        """
        try:
            if signal is not None:
                value = signal.value
                if signal.form == "FINAL_VAR" and (name := _finals.named(value)) is not None:
                    value = self._variable(name, value, hidden)
                told = _finals.told(signal.form, value, fields=signal.has_fields, most=self._most)
            elif may_answer and self._evaluate(_IS_READY):
                told = _finals.told("answer", self._evaluate(_TAKE), fields=False, most=self._most)
            else:
                return None, None
        except (NameError, ValueError) as problem:
            kind, message = type(problem).__name__, str(problem)
            return None, CodeError(kind=kind, message=message, traceback=f"{kind}: {message}")
        return GivenFinal(**told), None

    @property
    def are_told(self) -> bool:
        """Whether anything is told of the variables."""
        return self._tracker.mode != "none"

    def variables(
        self, hidden: frozenset[str], told: object = None
    ) -> tuple[tuple[Variable, ...], int]:
        """What is told of the variables, as the profile has it, and how many more there are.

        `told` is what `TOLD` gave, where the cell ended with it.
        """
        if not self.are_told:
            return (), 0
        found = self._evaluate(TOLD)[_VARIABLES] if told is None else told
        pairs = cast(dict[str, tuple[str, str]], found)
        users = {
            name: (kind, summary)
            for name, (kind, summary) in pairs.items()
            if kind not in MODULE_KINDS and (name not in hidden or _is_filled_answer(name, summary))
        }
        if self._tracker.mode == "names":
            simple = (name for name, (kind, _) in users.items() if kind in _summaries.SIMPLE)
            lines, more = self._tracker.named(simple)
        else:
            summaries = {name: line.removeprefix("_rlm_") for name, (_, line) in users.items()}
            lines, more = self._tracker.told(summaries)
        return tuple(Variable(name=n, summary=s, is_new=new) for n, s, new in lines), more

    def _variable(self, name: str, text: object, hidden: frozenset[str]) -> Any:
        """What ``FINAL_VAR`` was given by name: see `_finals`, rule 2."""
        known: dict[str, str] = self._evaluate("{k: type(v).__name__ for k, v in locals().items()}")
        users = [n for n, kind in known.items() if _is_users(n, kind, hidden)]
        if name == "answer" and self._evaluate("_rlm_is_protocol(answer)"):
            if content := self._evaluate("answer['content']"):
                return content
        elif name in users or (name in VALUES and name != "history"):
            return self._evaluate(name)
        if self._evaluate(_HOLDERS, {"_rlm_asked": text}) != ["_rlm_asked"]:
            return text
        raise _finals.no_variable(name, users)


def _is_users(name: str, kind: str, hidden: frozenset[str]) -> bool:
    return name not in hidden and not name.startswith("_") and kind not in MODULE_KINDS


def _is_filled_answer(name: str, summary: str) -> bool:
    """Whether this is ``answer`` with something in it."""
    return name == "answer" and summary != _UNUSED and ": ''" not in summary.partition(",")[0]
