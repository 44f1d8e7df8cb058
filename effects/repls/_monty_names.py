"""The names of a sandboxed session, and who they belong to: the runtime or the code.

1. `P`, `context` and `history` are copied into the sandbox when a cell first names them; everything
   else reads the host's. A cell whose uses of `P` the host answers doesn't name it.
2. Names of the runtime that a cell bound are put right before the next one, but for `SOFT` names.
   What is bound behind the parser's back, by `exec`, isn't noticed.
3. What the sandbox lacks of Python's library is added when a cell first asks for it.
4. ``globals()`` shows the same whatever code has called: all names are there then.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from effects.repls._finals import SOFT
from effects.repls._monty_calls import VALUES, Calls
from effects.repls._monty_code import Cell, prepare
from effects.repls._monty_raised import ERROR_KINDS, ERRORS
from effects.repls._monty_shims import BUILTINS, MODULE_KINDS, SHIMS
from effects.repls._monty_values import CtxPolicy, Output, encodable, stub
from effects.repls._monty_worker import Snapshot, Worker
from effects.repls._text import TextView


class SavedNames(Protocol):
    """What is written down of the names."""

    @property
    def spoiled(self) -> list[str]: ...
    @property
    def taken(self) -> list[str]: ...
    @property
    def owned(self) -> list[str]: ...
    @property
    def shims(self) -> list[str]: ...
    @property
    def bound(self) -> list[str]: ...


class Names:
    """The names of one session. Methods raise what the sandbox raises."""

    def __init__(self, view: TextView, calls: Calls, worker: Worker) -> None:
        self._view = view
        self._calls = calls
        self._worker = worker
        self.spoiled = frozenset[str]()
        """Names of the runtime that the last cell bound."""
        self.taken = frozenset[str]()
        """Names of the runtime that code has taken for good."""
        self.owned = frozenset[str]()
        """Names that code has bound and keeps, those of modules left out."""
        self.shims = frozenset[str]()
        """What was added to the sandbox's library so far."""
        self._hidden: tuple[object, frozenset[str]] | None = None
        """What `hidden` was computed of last, and its value."""

    def load(self, saved: SavedNames) -> None:
        """Become what was written down."""
        self.spoiled, self.taken = frozenset(saved.spoiled), frozenset(saved.taken)
        self.owned, self.shims = frozenset(saved.owned), frozenset(saved.shims)
        self._calls.bound = set(saved.bound)

    def read(self, source: str, number: int) -> Cell:
        """A cell from its source."""
        cell = prepare(source, number, self._calls.asking, self.owned)
        self.owned |= cell.bound - (self._calls.names - SOFT) - cell.modules
        return cell

    def put_right(self, cell: Cell) -> dict[str, Any]:
        """Bind what a cell needs; what is short is returned, to be bound with the cell."""
        if self.spoiled & ERROR_KINDS.keys():
            self.feed(ERRORS)
        inputs = self._values_for(cell)
        for name in cell.shims:
            if name not in self.shims:
                self._calls.drive(self.feed(SHIMS[name].source))
                self.shims |= {name}
        lost = self.spoiled & self._calls.functions
        if "globals" in cell.shims:
            self._calls.drive(self.feed("answer"))
            lost |= {n for n in self._calls.functions - self.taken if n.isidentifier()}
        inputs |= {name: stub(name) for name in lost}
        if "ctx" in self.spoiled:
            inputs["ctx"] = CtxPolicy(self._view)
        self.spoiled = (self._calls.names & cell.bound) - SOFT
        self.taken |= cell.bound & SOFT
        return inputs

    @property
    def hidden(self) -> frozenset[str]:
        """Names that are not the code's own variables now."""
        known = (self.spoiled, self.taken, self.shims, self.owned)
        if self._hidden is None or self._hidden[0] != known:
            builtins = (BUILTINS & self.shims) - self.owned
            hidden = (self._calls.names - self.spoiled - self.taken) | builtins
            self._hidden = (known, hidden)
        return self._hidden[1]

    def users(self, types: Mapping[str, str]) -> dict[str, str]:
        """The variables that the code made, modules left out, of names with their types."""
        hidden = self.hidden
        return {
            name: kind.removeprefix("_rlm_")
            for name, kind in types.items()
            if not name.startswith("_") and name not in hidden and kind not in MODULE_KINDS
        }

    def feed(self, code: str, inputs: dict[str, Any] | None = None) -> Snapshot:
        """Run a source of our own, whose output nobody wants."""
        return self._worker.feed(code, inputs, Output(0))

    def _values_for(self, cell: Cell) -> dict[str, Any]:
        """Bind the values that a cell names and the sandbox lacks; what is short is returned."""
        calls = self._calls
        named = cell.names | {"P"} if cell.wants_text else cell.names - {"P"}
        wanted = {n for n in VALUES if n in self.spoiled or n in named - calls.bound}
        calls.bound |= wanted
        inputs: dict[str, Any] = {}
        if "history" in cell.names:
            inputs["history"] = encodable(calls.history)
        texts = wanted - {"history"}
        if texts - {"P"} and self._view.kind == "document_list":
            self._worker.bind_texts("context", list(self._view))
            self.feed("context_0 = context")
            calls.bound |= {"context", "context_0"}
            texts &= {"P"}
        if texts:
            first, *others = sorted(texts)
            self._worker.bind_text(first, self._view.text)
            for name in others:
                self.feed(f"{name} = {first}")
        return inputs
