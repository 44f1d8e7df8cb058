"""What the frames of a session's process say, for a host that trusts none of them.

Each function takes a frame and gives what it tells of, or None where it is nonsense: a field that
is missing, or of another type than it must have. The commonest frames are looked through field by
field: ``match`` would take several times as long.
"""

from itertools import product
from typing import Any, Literal, cast, get_args

from effects.repls._summaries import MAX_NAMES
from effects.repls.base import Paused
from rlm_fsm.values import (
    CodeError,
    CodeResult,
    FinalForm,
    GivenFinal,
    HostCall,
    HostKind,
    ReadResult,
    Variable,
)

_KINDS = frozenset(get_args(HostKind))
_FORMS = frozenset(get_args(FinalForm)) - {"text"}
_NONE = type(None)
_ROWS = frozenset(
    product(
        (str,),  # fn
        (str,),  # prompt
        (str, _NONE),  # question
        (str, _NONE),  # model
        (int, _NONE),  # max_tokens
        (bool, _NONE),  # recursive
        (bool,),  # dedupe
        (str,),  # kind
        (str, _NONE),  # schema
        (bool, _NONE),  # is_sample
    )
)
"""The types of a call's row, see `_frames.CALL_FIELDS`, in all their combinations."""


def paused(frame: dict[str, Any]) -> tuple[Paused, float] | None:
    """A pause, and the seconds of computing that the cell has left."""
    rows, parallel, left_s = frame.get("calls"), frame.get("parallel"), frame.get("left_s")
    if type(rows) is not list or not rows or type(parallel) is not bool:
        return None
    if not isinstance(left_s, int | float) or not left_s >= 0:  # nor NaN
        return None
    calls = [_host_call(row) for row in cast(list[object], rows)]
    known = tuple([call for call in calls if call is not None])
    return (Paused(calls=known, parallel=parallel), left_s) if len(known) == len(calls) else None


def _host_call(row: Any) -> HostCall | None:
    fields: Any = row
    if type(row) is not list or tuple(map(type, fields)) not in _ROWS:
        return None
    fn, prompt, question, model, max_tokens, recursive, dedupe, kind, schema, sample = fields
    if kind not in _KINDS:
        return None
    return HostCall(
        fn=fn,
        prompt=prompt,
        question=question,
        model=model,
        max_tokens=max_tokens,
        recursive=recursive,
        dedupe=dedupe,
        kind=kind,
        schema=schema,
        is_sample=sample is True,
    )


def code_result(frame: dict[str, Any], watch: frozenset[str]) -> CodeResult | None:
    """How a cell ended. Only variables of `watch` may be told of."""
    out, chars = frame.get("out"), frame.get("chars")
    told, watched = frame.get("error", ""), frame.get("watched")
    if not isinstance(out, str) or not isinstance(chars, int) or not isinstance(watched, dict):
        return None
    error = None
    if told is not None and (error := _code_error(told)) is None:
        return None
    texts: dict[str, str] = {}
    for name, text in cast(dict[object, object], watched).items():
        if not isinstance(name, str) or not isinstance(text, str) or name not in watch:
            return None
        texts[name] = text
    final, variables = _final(frame.get("final")), _variables(frame.get("variables", []))
    more = frame.get("more", 0)
    if final is False or variables is None or not isinstance(more, int):
        return None
    return CodeResult(
        stdout=out,
        stdout_chars=chars,
        error=error,
        watched=texts,
        final=final or None,
        variables=variables,
        more_variables=more,
    )


def _final(told: object) -> GivenFinal | Literal[False] | None:
    """The final answer of a frame, None when there is none, False for nonsense."""
    match told:
        case None:
            return None
        case {
            "form": str(form),
            "text": str(text),
            "kind": str(kind),
            "data": str() | None as data,
        } if form in _FORMS:
            return GivenFinal(form=cast(FinalForm, form), text=text, kind=kind, data=data)
        case _:
            return False


def _variables(told: object) -> tuple[Variable, ...] | None:
    if not isinstance(told, list) or len(cast(list[object], told)) > MAX_NAMES:
        return None
    found: list[Variable] = []
    for item in cast(list[object], told):
        match item:
            case [str(name), str(summary), bool(is_new)]:
                found.append(Variable(name=name, summary=summary, is_new=is_new))
            case _:
                return None
    return tuple(found)


def _code_error(told: object) -> CodeError | None:
    match told:
        case {"kind": str(kind), "message": str(message), "traceback": str(traceback)}:
            return CodeError(kind=kind, message=message, traceback=traceback)
        case _:
            return None


def read_result(frame: dict[str, Any]) -> ReadResult | None:
    """A variable that was read."""
    match frame:
        case {
            "t": "value",
            "text": str() | None as text,
            "error": str() | None as error,
            "names": names,
        } if isinstance(names, list):
            known = [name for name in cast(list[object], names) if isinstance(name, str)]
            return ReadResult(text=text, error=error, names=tuple(known))
        case _:
            return None
