"""The page on the `monty` backend's Python, from the tables of the code.

The bridges are those of ``monty_bridges.txt``; a test runs each of its examples in both backends.
"""

import json
from pathlib import Path
from typing import Any

from effects.repls._library import FUNCTIONS
from effects.repls._monty_gaps import AVAILABLE, GAPS, INSTEAD_OF_MODULE, INSTEAD_OF_NAME
from effects.repls._monty_shims import FAR_CHARS, MODULES, SHIMS

DIFFERENCES = Path(__file__).parent.parent / "tests/data/trajectories/differences.json"

BRIDGES = Path(__file__).parent / "monty_bridges.txt"
"""What is bridged, each with code that shows it: a comment line, the code, an empty line."""

HEAD = """\
# The Python of `monty`

{generated}
Code in a `monty` session runs in pydantic-monty, which speaks a part of Python.
Simple gaps are bridged: a cell's source is changed before it runs, and tracebacks show the model's own code.
A bridge gives CPython's result or an error, never another result.
Where there is no bridge the error names the gap and says what to write instead.

## Recorded cells

{share}
`python -m pytest tests/test_trajectories.py` checks it.
The others, each with its reason:

| run | cell | why it differs |
|---|---|---|
"""

BRIDGED = """
## What is bridged

Each row is run in both backends by `tests/test_language.py`.

| what | for example |
|---|---|
"""

MODULES_HEAD = """
## Modules

The sandbox itself has `{available}`.
These are added when code imports them, with what is listed; those marked * are computed by CPython in a process of its own, with a time and a memory limit, and take plain data only:

| module | offers |
|---|---|
"""

GAPS_HEAD = """
## What is not bridged

| code that meets it | advice |
|---|---|
"""

REST = """
Other parts of modules that aren't there: {names}.
Modules that aren't there, and what does their work: {modules}.

## Where it differs without an error

These are the interpreter's own, and no bridge covers them:

- Generator expressions are evaluated when they are made: a subcall in `any(llm_query(p) for p in ps)` is asked for every `p`.
- `map`, `zip`, `filter`, `enumerate` and `reversed` give lists.
- What is no plain data (a function, a match, `d.values()`) becomes a text when it is handed to the host. Arguments of the host's functions are looked at, so that it is a `TypeError` or, for a batch, a list; not where such a function is called under another name, or by `map`.
- `SubcallLimitError` is the sandbox's `RecursionError`, since its Python has no exceptions of code's own: endless recursion is caught by its name, too. `SubcallError` and `ToolError` are its `RuntimeError`, so that each catches the other. What they carry (`.results`, `.tool`) is theirs until the cell ends that raised them; the message of a second error of the same words says that it is another.
- The clock goes on by a millisecond each time that it is read, and `sleep` takes no time. Random numbers begin at the run's own seed.
- Sets have another order than CPython's.
- `re.split` and `re.findall` leave out some empty matches.
- Texts of error messages differ in places; `type(e).__name__` is mostly the same.
- A task of `asyncio` that is awaited runs on together with all tasks made before it, to their end.

## Long texts

Some of the sandbox's operations on texts take time with the square of the length.

- `ctx` methods run on the host.
- `P` is copied into the sandbox when a cell uses it otherwise than by `P.find`, `rfind`, `index`, `rindex`, `count`, `startswith` and `endswith`, which the host answers; code that asks for all variables counts as using it.
- `re.sub` of more than {far:,} characters is done by CPython, in a process of its own.
- What is left, such as `text.find(x, start)` in a loop over another variable than `P`, or slices of a text that isn't ASCII, ends at the cell's time limit.

## Limits

| limit | set to |
|---|---|
| computing time of a cell | `ReplLimits.cell_timeout_s`; a worker that ignores it is killed one second later |
| memory | `ReplLimits.memory_bytes`, and what the context needs |
| suspensions of a session | none (the interpreter's own default is 1,000) |
| depth of recursion | 1,000 |
| clock, sleep, chance | a date and a seed of the run, no time |
| processes | one for each session, in a pool of its own |

After a limit of time or memory the session is discarded, the model is told which limit it was and that the variables are gone, and the next cell begins an empty session.
"""


def monty_page(generated: str) -> str:
    """The page; `generated` is the line that says so."""
    found = json.loads(DIFFERENCES.read_text(encoding="utf-8"))
    return "".join(
        [
            HEAD.format(generated=generated, share=_share(found)),
            *[f"| {run} | {cell} | {why} |\n" for run, cell, why in found["differences"]],
            BRIDGED,
            *[f"| {what} | {_code(code)} |\n" for what, code in bridges()],
            MODULES_HEAD.format(available=" ".join(sorted(AVAILABLE))),
            *[_module(name) for name in sorted(MODULES)],
            GAPS_HEAD,
            *[f"| {_code(gap.example)} | {gap.advice} |\n" for gap in GAPS if gap.example],
            REST.format(
                names=", ".join(f"`{name}` ({way})" for name, way in INSTEAD_OF_NAME.items()),
                modules=", ".join(f"`{name}` ({way})" for name, way in INSTEAD_OF_MODULE.items()),
                far=FAR_CHARS,
            ),
        ]
    )


def bridges() -> list[tuple[str, str]]:
    """What is bridged, and code that shows it."""
    parts = BRIDGES.read_text(encoding="utf-8").strip().split("\n\n")
    pairs = [part.removeprefix("# ").partition("\n") for part in parts]
    return [(what, code) for what, _, code in pairs]


def _share(found: dict[str, Any]) -> str:
    cells, differ = found["cells"], len(found["differences"])
    return (
        f"Of {cells} cells that models wrote in recorded runs of six projects, {cells - differ} "
        f"({100 * (cells - differ) / cells:.1f} %) print, raise and answer the same in both "
        "backends."
    )


def _module(name: str) -> str:
    mark = " *" if name in FUNCTIONS else ""
    return f"| `{name}`{mark} | {' '.join(SHIMS[name].names)} |\n"


def _code(source: str) -> str:
    lines = source.replace("|", "\\|").split("\n")
    return "<br>".join(f"`{line.replace(' ', chr(160))}`" if line else "" for line in lines)
