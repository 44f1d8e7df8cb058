"""Contexts in the log: so that a run comes back by itself.

1. A context given as text is kept whole, by content and compressed, when it is not longer than
   `store_context_chars`. Equal texts are kept once, however many runs ask about them.
2. Of files the log keeps their paths; they are read again.
3. Either way the digest decides: a context that is not what it was is refused, never used.
"""

import json
from typing import Any, cast

from effects.context import Context, Files
from effects.log.base import EventLog
from effects.repls._text import TextView
from rlm_fsm.errors import UsageError
from rlm_fsm.values import ContextInfo

STORE_CONTEXT_CHARS = 10_000_000
"""Longest context that is kept by default: about a quarter of a second of compressing."""


def keep(log: EventLog, context: Context, store_context_chars: int) -> str:
    """Keep what is needed to open the context again; the manifest's name, or an empty text."""
    manifest: dict[str, Any] = {"kind": context.kind, "names": context.names}
    if context.files is not None:
        manifest["paths"] = context.files.paths
        manifest["encoding"] = context.files.encoding
    elif context.len_chars() <= store_context_chars:
        manifest["text"] = log.put_blob(context.text)
        manifest["spans"] = context.spans
    else:
        return ""
    return log.put_blob(json.dumps(manifest, separators=(",", ":")))


def reopen(log: EventLog, info: ContextInfo) -> Context:
    """The context of a run, opened again. `UsageError` says what is missing or changed."""
    text = log.blob(info.manifest) if info.manifest else None
    if text is None:
        raise UsageError(
            f"the context of this run ({info.chars:,} characters) isn't in the log: pass it again "
            "as context=. (A context is kept up to store_context_chars.)"
        )
    manifest = cast(dict[str, Any], json.loads(text))
    try:
        context = _opened(log, manifest)
    except UsageError as error:
        raise UsageError(f"the context of this run can't be opened again: {error}") from error
    return checked(context, info, "its files have changed")


def checked(context: Context, info: ContextInfo, why: str) -> Context:
    """The context, if it is the one that the run began with."""
    if context.digest() != info.digest:
        raise UsageError(
            f"this is not the context that the run began with ({why}): "
            f"{context.len_chars():,} characters in {context.num_documents():,} documents, then "
            f"{info.chars:,} in {info.documents:,}. Pass the same texts as context=, "
            "or begin a new run."
        )
    return context


def _opened(log: EventLog, manifest: dict[str, Any]) -> Context:
    names: list[str] | None = manifest["names"]
    if "paths" in manifest:
        files = Files(tuple(manifest["paths"]), manifest["encoding"])
        return Context.reopened(files, names or [])
    text = log.blob(manifest["text"])
    if text is None:
        raise UsageError("its text is missing from the log")
    spans = [(start, end) for start, end in manifest["spans"]]
    return Context(TextView(text, spans, manifest["kind"], names))
