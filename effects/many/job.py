"""Jobs of a batch: from what the caller has to what can be run, checked before anything starts.

1. A job is a question over a context. It may be a `Job`, a pair, a mapping, a bare question (when
   the batch has a context of its own), or a line of a JSONL file.
2. All that is wrong with any of the jobs is told in one `UsageError`: a batch with a bad row is
   not begun.
3. A job is known by its id, question and context. The same job in the same batch has the same run,
   whatever its place; a job whose question or texts were changed is another one.
4. Contexts are opened for the check, and let go of again where they are copies: a batch of many
   folders doesn't hold them all. They are opened again when their job begins.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any, cast

from effects.context import Context
from rlm_fsm.errors import UsageError
from rlm_fsm.ids import RunId
from rlm_fsm.numbers import counted

NAME_CHARS = 30
"""Longest name of a batch: with a job's part behind it, it must fit a run's id of 64."""

_KEYS = ("query", "context", "paths", "id", "metadata")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")
_SLUG_CHARS = 18
_KEY_CHARS = 12
_SHOWN = 20
"""How many wrong jobs are told of."""


@dataclass(frozen=True)
class Job:
    """One question over one context."""

    query: str
    context: object = None
    """What `run` takes as a context; None for the batch's own."""
    id: str | None = field(default=None, kw_only=True)
    """A name of yours, unique within the batch; None: a hash of the content."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any], kw_only=True)
    """Anything that the result's row is to hold too, as JSON has it. No model sees it."""


Jobs = Iterable[object] | PathLike[str]
"""Jobs, or the path of a JSONL file, ``Path("-")`` for standard input."""
STDIN = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedJob:
    """A job that can be run."""

    id: str
    """As given, else the key."""
    key: str
    """Names the job by content: 12 hex digits."""
    slug: str
    """What a run's id shows of the job's."""
    query: str
    metadata: Mapping[str, Any]
    digest: str
    """Of the context."""
    opens: Callable[[], Context] = field(repr=False)

    def open(self) -> Context:
        """The context. `UsageError` when its files aren't what they were at the check."""
        context = self.opens()
        if context.digest() != self.digest:
            raise UsageError("the files of its context have changed since the batch began")
        return context

    def run_id(self, batch: str) -> RunId:
        """The name of the job's run in a batch."""
        return RunId(".".join(part for part in (batch, self.slug, self.key) if part))


def checked_jobs(jobs: Jobs, context: object = None) -> list[CheckedJob]:
    """The jobs, if all of them can be run; `context` is for those without one.

    Raises `UsageError` for what is wrong with them, and `TypeError` for what isn't a list of jobs.
    """
    opener = _Opener(None if context is None else Context.of(context))
    found: list[tuple[str, CheckedJob]] = []
    wrong: list[str] = []
    count = 0
    for place, row, base in _rows(jobs):
        count += 1
        try:
            found.append((place, _checked(_as_job(row, base), opener)))
        except (UsageError, TypeError) as error:
            wrong.append(f"{place}: {error}")
    wrong += _repeated(found)
    if wrong:
        raise UsageError(_complaint(wrong, count))
    if not found:
        raise UsageError("there are no jobs: nothing to run")
    return [job for _, job in found]


def check_name(name: str) -> str:
    """The name of a batch, if run ids can begin with it."""
    is_text = isinstance(cast(object, name), str)
    if not is_text or not _NAME.fullmatch(name) or len(name) > NAME_CHARS:
        raise UsageError(
            f"name={name!r}: give 1 to {NAME_CHARS} letters, digits, dots, dashes or underscores"
        )
    return name


class _Opener:
    """Opens contexts and remembers the digests of those that several jobs share."""

    def __init__(self, shared: Context | None) -> None:
        self._shared = shared
        self._digests: dict[object, str] = {}

    def open(self, value: object) -> tuple[Callable[[], Context], str]:
        """What opens a context again, and its digest."""
        if value is None:
            shared = self._shared
            if shared is None:
                raise UsageError("it has no context, and the batch has none for all")
            return lambda: shared, shared.digest()
        if isinstance(value, Context | str):  # neither is copied
            opened = Context.of(value)
            return lambda: opened, opened.digest()
        key = _identity(value)
        digest = self._digests.get(key)
        if digest is None:
            digest = self._digests[key] = Context.of(value).digest()
        return lambda: Context.of(value), digest


def _identity(value: object) -> object:
    """What two values have in common that are the same context; the jobs keep the values alive."""
    found = id(value)
    items = cast(list[object], value) if isinstance(value, list) else ()
    return tuple(items) if items and all(isinstance(item, Path) for item in items) else found


def _rows(jobs: Jobs) -> Iterator[tuple[str, object, Path]]:
    """Each row with its place, for messages, and the folder that its paths are in."""
    if isinstance(jobs, PathLike):
        yield from _lines(Path(jobs))
        return
    rows, kind = cast(object, jobs), _kind(jobs)
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise TypeError(f"jobs is a list of jobs or the pathlib.Path of a JSONL file, not {kind}")
    for number, row in enumerate(cast(Iterable[object], rows), 1):
        yield f"job {number}", row, Path()


def _lines(path: Path) -> Iterator[tuple[str, object, Path]]:
    is_stdin = str(path) == STDIN
    place = "standard input" if is_stdin else str(path)
    try:
        read = sys.stdin.buffer.read() if is_stdin else path.read_bytes()
        lines = str(read, "utf-8-sig").replace("\r\n", "\n").split("\n")
    except OSError as error:
        raise UsageError(f"the jobs can't be read: {place}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the jobs can't be read: {place} is not UTF-8") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{place}, line {number}", _Line(line), path.absolute().parent


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a JSONL file."""

    text: str

    def row(self) -> object:
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"not JSON: {error}") from None


def _as_job(row: object, base: Path) -> Job:
    if isinstance(row, _Line):
        row = row.row()
        if _kind(row) != "dict":
            raise UsageError(f"a line holds an object, not {_kind(row)}")
    kind = _kind(row)
    if isinstance(row, Job):
        return row
    if isinstance(row, str):
        return Job(row)
    if isinstance(row, Mapping):
        return _of_mapping(cast(Mapping[object, object], row), base)
    if isinstance(row, tuple):
        parts = cast(tuple[object, ...], row)
        if len(parts) == 2 and isinstance(parts[0], str):
            return Job(parts[0], parts[1])
    raise TypeError(f"a job is a Job, a pair (query, context), a dict or a str, not {kind}")


def _of_mapping(row: Mapping[object, object], base: Path) -> Job:
    if unknown := [key for key in row if key not in _KEYS]:
        named = ", ".join(repr(key) for key in unknown)
        raise UsageError(f"unknown: {named}. A job has {', '.join(_KEYS)}; put more under metadata")
    context, paths = row.get("context"), row.get("paths")
    if paths is not None:
        if context is not None:
            raise UsageError("it has a context and paths: give one of them")
        context = _paths(paths, base)
    given = row.get("id")
    is_number = isinstance(given, int) and not isinstance(given, bool)
    metadata = row.get("metadata")
    return Job(
        cast(str, row.get("query")),
        context,
        id=str(given) if is_number else cast(str | None, given),
        metadata=cast(Mapping[str, Any], {} if metadata is None else metadata),
    )


def _paths(paths: object, base: Path) -> list[Path]:
    """Absolute ones: a file's name is part of its context, and must not depend on the folder that
    the program was started in."""
    listed = [paths] if isinstance(paths, str) else paths
    if not isinstance(listed, list) or not listed:
        raise TypeError("paths is a path or a list of paths")
    items = cast(list[object], listed)
    if not all(isinstance(item, str) and item for item in items):
        raise TypeError("paths is a path or a list of paths")
    return [(base / Path(str(item)).expanduser()).absolute() for item in items]


def _checked(job: Job, opener: _Opener) -> CheckedJob:
    query, given, metadata = (cast(object, x) for x in (job.query, job.id, job.metadata))
    if not isinstance(query, str) or not query.strip():
        raise UsageError("it has no query: give the question as text")
    if given is not None and (not isinstance(given, str) or not given.strip()):
        raise UsageError(f"id={given!r}: give a text that isn't empty, or leave it out")
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata is a mapping, not {_kind(metadata)}")
    try:
        kept = json.loads(json.dumps({**job.metadata}, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f"metadata can't be kept as JSON: {error}") from None
    opens, digest = opener.open(job.context)
    key = _hashed([given, query, digest])
    return CheckedJob(
        id=given or key,
        key=key,
        slug=_UNFIT.sub("-", given or "").strip("-")[:_SLUG_CHARS],
        query=query,
        metadata=kept,
        digest=digest,
        opens=opens,
    )


def fingerprint(parts: Sequence[object]) -> str:
    """Names plain data by content: 8 hex digits."""
    return _hashed(parts)[:8]


def _hashed(parts: Sequence[object]) -> str:
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:_KEY_CHARS]


def _repeated(found: Sequence[tuple[str, CheckedJob]]) -> list[str]:
    """Jobs that are there twice."""
    wrong: list[str] = []
    first: dict[str, str] = {}
    for place, job in found:
        if job.id not in first:
            first[job.id] = place
        elif job.id == job.key:
            wrong.append(f"{place}: the same as {first[job.id]}; to run both, give them ids")
        else:
            wrong.append(f"{place}: the id {job.id!r} is that of {first[job.id]} too")
    return wrong


def _complaint(wrong: Sequence[str], count: int) -> str:
    lines = [f"{len(wrong):,} of {counted(count, 'job')} can't be run; nothing was started:"]
    lines += [f"  {text}" for text in wrong[:_SHOWN]]
    if len(wrong) > _SHOWN:
        lines.append(f"  ... and {len(wrong) - _SHOWN:,} more")
    return "\n".join(lines)


def _kind(value: object) -> str:
    return type(value).__name__
