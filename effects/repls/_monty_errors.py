"""Errors of the sandbox as the model sees them: rendered like CPython's, with a way round.

The sandbox speaks a part of Python. Where the model meets a gap, the error names it and says
what to write instead (`_monty_gaps`): one sentence, since the model reads it in its next turn.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby

from pydantic_monty import Frame, MontyRuntimeError, MontySyntaxError

from effects.repls._cell import MAX_MESSAGE_CHARS, MAX_TRACEBACK_CHARS, shortened
from effects.repls._monty_code import Cell
from effects.repls._monty_gaps import hint, plain
from rlm_fsm.values import CodeError

TIME_LIMIT = "feed time limit exceeded"
"""How the sandbox's message begins when a cell computes for too long."""
MEMORY_LIMITS = ("memory limit exceeded", "the worker exceeded its memory limit")
"""How its messages begin when a cell takes too much memory."""

_STAND_INS = ("RuntimeError", "RecursionError", "NotImplementedError", "BaseException")
"""Classes that stand for those of the runtime."""
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
    kind = renamed.get(message, kind) if kind in _STAND_INS else kind
    if found := hint(message):
        message = f"{plain(message).rstrip('.')}. {found}"
    message = shortened(message, MAX_MESSAGE_CHARS)
    last = f"{kind}: {message}" if message else kind
    frames = list(_frames(error.traceback(), cells))
    lines = ["Traceback (most recent call last):", *frames] if frames else []
    traceback = shortened("\n".join([*lines, last]), MAX_TRACEBACK_CHARS)
    return CodeError(kind=kind, message=message, traceback=traceback)


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
    number = cell.line(frame.line) if cell else frame.line
    text = f'  File "{place}", line {number}{within}'
    if cell is None or not 0 < number <= len(lines := cell.lines):
        return text
    line = lines[number - 1]
    text += f"\n    {line.strip()}"
    # A line that was inserted into has other columns than the one that is shown.
    if frame.source_line == line and frame.end_line == frame.line:
        indent = len(line) - len(line.lstrip())
        start, end = frame.column - 1 - indent, frame.end_column - 1 - indent
        if 0 <= start < end and line.strip()[start:end] != line.strip():
            text += f"\n    {' ' * start}{'^' * (end - start)}"
    return text
