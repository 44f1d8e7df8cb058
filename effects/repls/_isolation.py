"""Whether a sandbox is as closed as was asked for, and as the run's record says.

1. What a machine offers is found out by starting a session, once for each program: the report of
   the first process holds for those that come after it.
2. A later process that lacks a layer which the first one had doesn't start: the record of a run
   must not promise more than there is.
"""

from typing import cast

from effects.repls.base import ReplSettings, ReplUnavailable
from effects.sandbox.report import Report, report_of

_first: dict[tuple[str, ...], Report] = {}
"""The first report, by the layers that were left out."""


def known(settings: ReplSettings) -> Report | None:
    """What is known already of the sandbox of the `python` backend."""
    return _first.get(settings.without_layers)


def checked(layers: object, settings: ReplSettings) -> Report:
    """The report of a process that has started. Raises `ReplUnavailable` when it won't do."""
    found = _layers_of(layers)
    if found is None:
        raise ReplUnavailable("the Python process for model-written code sent no list of layers")
    report = report_of(found)
    first = _first.setdefault(settings.without_layers, report)
    for name in first.active:
        if name in report.missing:
            raise ReplUnavailable(
                f"the layer {name!r} of the sandbox, which earlier sessions had, could not be put "
                f"in place: {report.missing[name]}"
            )
    refusal = report.refusal() if settings.limits.isolation == "strict" else None
    if refusal is not None:
        raise ReplUnavailable(refusal)
    return report


def _layers_of(told: object) -> dict[str, str] | None:
    if not isinstance(told, dict):
        return None
    pairs = cast(dict[object, object], told).items()
    return {k: v for k, v in pairs if isinstance(k, str) and isinstance(v, str)}
