"""Errors of the sandbox as the model sees them: rendered like CPython's, with a way round.

The sandbox speaks a part of Python. Where the model meets a gap, the error names it and says
what to write instead: one sentence, since the model reads it in its next turn. Gaps are matched
by message, since the sandbox raises the same classes as for genuine mistakes.
"""

import builtins
import re
from collections.abc import Iterator, Mapping
from itertools import groupby

from pydantic_monty import Frame, MontyRuntimeError, MontySyntaxError

from effects.repls._cell import MAX_MESSAGE_CHARS, MAX_TRACEBACK_CHARS, shortened
from effects.repls._monty_code import Cell
from rlm_fsm.values import CodeError

TIME_LIMIT = "feed time limit exceeded"
"""How the sandbox's message begins when a cell computes for too long."""
MEMORY_LIMITS = ("memory limit exceeded", "the worker exceeded its memory limit")
"""How its messages begin when a cell takes too much memory."""

_MODULES = (
    "asyncio base64 binascii bisect collections copy csv dataclasses datetime decimal functools "
    "hashlib itertools json math os pathlib random re sys time tomllib typing unicodedata"
)
_INSTEAD_OF_MODULE = {
    "ast": "json.loads reads JSON",
    "concurrent": "llm_batch(prompts) asks in parallel",
    "enum": "use constants",
    "fractions": "decimal and integers are there",
    "heapq": "use sorted(...)[:n]",
    "io": "text.splitlines() gives lines, and csv.reader takes a list of lines",
    "operator": "use a lambda",
    "pprint": "json.dumps(x, indent=1) prints nested data",
    "statistics": "use sum(xs) / len(xs) and sorted(xs)[len(xs) // 2]",
    "string": "write the characters as a text",
    "textwrap": "slice the text",
    "threading": "llm_batch(prompts) asks in parallel",
}
_METHOD = re.compile(r"(?:'(\w+)' object|type object '(\w+)') has no attribute '(\w+)'")
_HINTS: tuple[tuple[str, str], ...] = (
    (r"parser does not yet support yield", "Build a list and return it instead of yielding."),
    (r"parser does not yet support the 'del'", "Assign None, or use list.pop or dict.pop."),
    (
        r"parser does not yet support class inheritance",
        "Write a plain class; raise a builtin exception such as ValueError.",
    ),
    (r"parser does not yet support method decorators", "Write plain methods or functions."),
    (r"parser does not yet support", "Write it in simpler Python."),
    (
        r"cannot suspend in this synchronous context",
        "Functions of the runtime can't be called inside map, filter, a sort key or __str__: "
        "use a for loop or a list comprehension, or llm_batch.",
    ),
    (r"'list' object is not an iterator", "Generators are lists here: use next(iter(...))."),
    (r"callable replacement is not yet", "Loop over re.finditer and build the text yourself."),
    (r"'TextView' object is not subscriptable", "Use ctx.slice(start, end) or P[start:end]."),
    (r"object of type 'TextView' has no len", "Use ctx.len_chars() or ctx.num_documents()."),
    (r"argument of type 'TextView'", "Use ctx.find(text), or text in P."),
    (
        r"'TextView' object is not iterable",
        "Use ctx.get_document(i) for i in range(ctx.num_documents()).",
    ),
    (r"has no attribute 'results'", 'Errors carry no data here: pass on_error="return".'),
    (
        r"name '(globals|dir|vars)' is not defined",
        "It isn't available here: SHOW_VARS() lists the variables.",
    ),
    (
        r"name '(ascii|bytearray|callable|classmethod|compile|delattr|exit|help|input|issubclass|"
        r"memoryview|quit|staticmethod|super|__import__)' is not defined",
        "This builtin isn't available here.",
    ),
    (r"frame of \d+ bytes exceeds", "Pass smaller pieces."),
    (r"exceptions can only be called with zero or one string", "Give the exception one text."),
)
_KEPT_FRAMES = 12
"""Runs of equal frames shown of a deep stack, half from each end."""


def code_error(
    error: MontyRuntimeError | MontySyntaxError,
    cells: Mapping[str, Cell],
    renamed: Mapping[str, str],
) -> CodeError:
    """The error of a cell.

    `cells` are the session's cells by the file name that the sandbox gave them, `renamed` the
    right class names of errors, by message, whose class the sandbox hasn't got.
    """
    exception = error.exception()
    kind = error.display("type-msg").partition(":")[0].rpartition(".")[2]
    # Of a KeyError, Python shows the key's repr; the sandbox gives the bare key.
    message = str(exception) if isinstance(exception, KeyError) else error.display("msg")
    kind = renamed.get(message, kind) if kind in ("RuntimeError", "RecursionError") else kind
    if found := hint(message):
        message = f"{message.rstrip('.')}. {found}"
    message = shortened(message, MAX_MESSAGE_CHARS)
    last = f"{kind}: {message}" if message else kind
    frames = list(_frames(error.traceback(), cells))
    lines = ["Traceback (most recent call last):", *frames] if frames else []
    traceback = shortened("\n".join([*lines, last]), MAX_TRACEBACK_CHARS)
    return CodeError(kind=kind, message=message, traceback=traceback)


def hint(message: str) -> str | None:
    """A way round what the message complains of, as a sentence; None for ordinary errors."""
    if module := re.match(r"No module named '(\w+)", message):
        instead = _INSTEAD_OF_MODULE.get(module[1])
        return f"Available: {_MODULES}." + (f" Instead: {instead}." if instead else "")
    if (method := _METHOD.search(message)) and _is_pythons(method[1] or method[2], method[3]):
        return "It isn't available here, or not as a value: write a lambda that calls it."
    return next((text for pattern, text in _HINTS if re.search(pattern, message)), None)


def _is_pythons(kind: str, attribute: str) -> bool:
    """Whether CPython has what the sandbox hasn't: otherwise the mistake is the code's own."""
    owner = getattr(builtins, kind, None)
    return isinstance(owner, type) and hasattr(owner, attribute)


def _frames(frames: list[Frame], cells: Mapping[str, Cell]) -> Iterator[str]:
    shown = (_frame(frame, cells) for frame in frames)
    runs = [(text, len(list(same))) for text, same in groupby(text for text in shown if text)]
    half = _KEPT_FRAMES // 2
    for i, (text, count) in enumerate(runs):
        if half <= i < len(runs) - half:
            if i == half:
                yield f"  [{len(runs) - _KEPT_FRAMES} more frames]"
            continue
        yield from [text] * min(count, 3)
        if count > 3:
            yield f"  [Previous line repeated {count - 3} more times]"


def _frame(frame: Frame, cells: Mapping[str, Cell]) -> str | None:
    """A frame with its line; None for frames that aren't the model's."""
    cell = cells.get(frame.filename)
    if cell is None and frame.filename != "<string>":
        return None
    place = f"<cell {cell.number}>" if cell else frame.filename
    within = f", in {frame.function_name}" if frame.function_name else ""
    text = f'  File "{place}", line {frame.line}{within}'
    if cell is None or not 0 < frame.line <= len(lines := cell.lines):
        return text
    line = lines[frame.line - 1]
    text += f"\n    {line.strip()}"
    # A line that was inserted into has other columns than the one that is shown.
    if frame.source_line == line and frame.end_line == frame.line:
        indent = len(line) - len(line.lstrip())
        start, end = frame.column - 1 - indent, frame.end_column - 1 - indent
        if 0 <= start < end and line.strip()[start:end] != line.strip():
            text += f"\n    {' ' * start}{'^' * (end - start)}"
    return text
