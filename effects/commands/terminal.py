"""Where the command line writes: answers to stdout, everything else to stderr.

A reader that goes away (``| head``) isn't an error: what is written afterwards is dropped. An
answer that can't be written (a full disk) is: `OutputLost`. What can't be told on stderr isn't.
"""

import json
import os
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any, TextIO, cast

from effects.view.cut import clean
from rlm_fsm.errors import RLMError

if TYPE_CHECKING:
    from effects.view.blocks import TerminalConsole
    from effects.view.follow import Earlier
    from effects.view.live import LiveView
    from effects.view.plain import PlainView


class OutputLost(RLMError):
    """Standard output can't be written. What a run answered is in its log."""


_PIPE_WIDTH = 120
"""Columns of a table that isn't shown on a terminal."""


class Terminal:
    """The streams of one command and how they are to be used."""

    def __init__(self, arguments: Namespace | None = None) -> None:
        """Reads ``json``, ``quiet`` and ``no_color`` of the arguments, and NO_COLOR."""
        self.wants_json = bool(getattr(arguments, "json", None))
        self.is_quiet = bool(getattr(arguments, "quiet", None))
        no_color = bool(getattr(arguments, "no_color", None))
        self.has_color = not (no_color or os.environ.get("NO_COLOR"))

    def answer(self, text: str) -> None:
        """An answer: stdout, as it is, with a newline at its end."""
        _write(sys.stdout, text if text.endswith("\n") else text + "\n")

    def json(self, document: Any) -> None:
        """A document for programs: stdout, in ASCII, so that any locale can print it."""
        _write(sys.stdout, json.dumps(document, indent=2) + "\n")

    def json_line(self, document: Any) -> None:
        """One of many documents for programs: stdout, a line of its own, in ASCII."""
        _write(sys.stdout, json.dumps(document) + "\n")

    def tell(self, message: str) -> None:
        """A message for people: stderr, after the program's name."""
        _write(sys.stderr, clean(f"rlm-fsm: {message}") + "\n")

    def progress(self, line: str) -> None:
        """A line of progress: stderr."""
        _write(sys.stderr, line + "\n")

    def console(self, stream: TextIO) -> "TerminalConsole":
        """A rich console on a stream."""
        from effects.view.blocks import TerminalConsole

        width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
        return TerminalConsole(
            file=cast(TextIO, _Guarded(stream)),
            width=width,
            no_color=None if self.has_color else True,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def view(self, earlier: "Earlier | None" = None) -> "LiveView | PlainView":
        """How a run is shown: live on a terminal, in lines elsewhere, not at all when quiet.

        `earlier`: see `effects.view.follow.Follower`.
        """
        from effects.view.plain import PlainView

        if self.is_quiet:
            return PlainView(lambda _: None, earlier)
        if not self.has_live_view:
            return PlainView(self.progress, earlier)
        from effects.view.live import LiveView

        return LiveView(self.console(sys.stderr), earlier=earlier)

    @property
    def has_live_view(self) -> bool:
        """Whether stderr is a terminal on which things can move."""
        return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")

    def flush(self) -> None:
        """Write out what is buffered, so that nothing is left to fail when the program ends."""
        for stream in (sys.stdout, sys.stderr):
            _write(stream, "")


def open_streams() -> None:
    """Put something in the place of standard streams that were closed (``2>&-``).

    Python has None there, and the next file that is opened, a log perhaps, would have their number.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    for name, fd, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


class _Guarded:
    """A stream for those who write by themselves: it fails as `Terminal` does."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        _write(self._stream, text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _write(stream: TextIO, text: str) -> None:
    """Write and flush; what the stream's encoding lacks is escaped."""
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        # Without this, Python would complain when it flushes at its end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            raise OutputLost(
                f"standard output can't be written: {error.strerror}. What a run answered is in "
                "its log: rlm-fsm show last"
            ) from error
