"""``rlm-fsm doctor``: what this machine offers, and what is missing for more.

Nothing secret is shown: of keys and addresses, the names of their variables only.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from effects.commands.options import JSON, LOG, Option
from effects.commands.terminal import Terminal
from rlm_fsm._version import __version__
from rlm_fsm.errors import RLMError

OPTIONS = (
    Option(name="strict", help="exit with 1 when a layer of the sandbox is missing"),
    LOG,
    JSON,
)
GROUPS = {"options": OPTIONS}
VARIABLES = (
    "RLM_FSM_MODEL",
    "RLM_FSM_BASE_URL",
    "LLM_API_KEY",
    "OPENAI_API_KEY",
    "LLM_BASE_URL",
    "OPENAI_BASE_URL",
    "HTTPS_PROXY",
)
_PROJECT = "rlm-fsm"


def add_arguments(parser: ArgumentParser) -> None:
    """It takes options only."""


def doctor(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Print what there is; 1 with ``--strict`` when a layer is missing."""
    import platform
    import sqlite3

    from effects.rlm import log_target

    terminal = Terminal(arguments)
    document: dict[str, Any] = {
        "rlm_fsm": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "sqlite": sqlite3.sqlite_version,
        "monty": _version("pydantic-monty"),
        "extras": _extras(),
        "configured": [name for name in VARIABLES if environment.get(name, "").strip()],
        "log": _log(str(log_target(arguments.log))),
        "sandbox": _sandbox(),
    }
    if terminal.wants_json:
        terminal.json(document)
    else:
        terminal.answer("\n".join(_lines(document)))
    sandbox = document["sandbox"]
    lacking = bool(sandbox["missing"]) or sandbox["error"] is not None
    return 1 if arguments.strict and lacking else 0


def _sandbox() -> dict[str, Any]:
    """The layers of the `python` backend on this machine, by starting a session."""
    from effects.repls.base import ReplLimits
    from effects.sandbox.report import LAYERS
    from effects.sandboxes import report
    from effects.waiting import run_job

    found, error = None, None
    try:
        found = run_job(lambda: report("python", ReplLimits()))
    except RLMError as failure:
        error = str(failure)
    missing: Mapping[str, str] = {} if found is None else found.missing
    return {
        "error": error,
        "files_closed": found is not None and "files" in found.closed,
        "network_closed": found is not None and "network" in found.closed,
        "active": {name: LAYERS[name].does for name in (found.active if found else ())},
        "missing": {
            name: {"does": LAYERS[name].does, "why": why, "remedy": LAYERS[name].remedy}
            for name, why in missing.items()
        },
    }


def _log(path: str) -> dict[str, Any]:
    """Where runs are recorded unless told otherwise, and whether that can be done."""
    if path == ":memory:":
        return {"path": path, "exists": False, "writable": True, "problem": None}
    place = Path(path)
    problem = _problem_of(place)
    return {
        "path": path,
        "exists": place.exists(),
        "writable": problem is None,
        "problem": problem,
    }


def _problem_of(place: Path) -> str | None:
    """Why a log can't be written at a place. Leaves nothing there."""
    import tempfile

    folder = place.parent
    while not folder.exists():  # the folders of a log are made with it
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if place.exists() and not (place.is_file() and os.access(place, os.R_OK | os.W_OK)):
        return f"{place}: it is no file that can be read and written"
    return None


def _extras() -> dict[str, bool]:
    """The optional parts of this project -> whether all that they need is installed."""
    from importlib import metadata

    try:
        about = metadata.metadata(_PROJECT)
        needs = metadata.requires(_PROJECT) or []
    except metadata.PackageNotFoundError:
        return {}
    found: dict[str, bool] = {}
    for extra in about.get_all("Provides-Extra") or []:
        marked = [need for need in needs if f'extra == "{extra}"' in need.replace("'", '"')]
        found[extra] = all(_version(_name(need)) is not None for need in marked)
    return found


def _name(requirement: str) -> str:
    """The package that a requirement names: what stands before its version."""
    end = next((i for i, c in enumerate(requirement) if not (c.isalnum() or c in "-_.")), None)
    return requirement[:end]


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"rlm-fsm {document['rlm_fsm']}, Python {document['python']}, {document['system']}"
    yield f"SQLite {document['sqlite']}, pydantic-monty {document['monty'] or 'not installed'}"
    for name, installed in document["extras"].items():
        how = "installed" if installed else f"not installed: pip install '{_PROJECT}[{name}]'"
        yield f"extra {name}: {how}"
    names = document["configured"]
    yield f"configured: {', '.join(names) or 'no model, key or endpoint (rlm-fsm demo needs none)'}"
    log = document["log"]
    state = "writable" if log["writable"] else f"NOT writable: {log['problem']}"
    yield f"log: {log['path']} ({state}{'' if log['exists'] else ', not there yet'})"
    yield ""
    sandbox = document["sandbox"]
    if sandbox["error"]:
        yield f"the python backend does not start: {sandbox['error']}"
        return
    closed = (("files", sandbox["files_closed"]), ("network", sandbox["network_closed"]))
    told = ", ".join(f"{what} {'closed' if is_so else 'OPEN'}" for what, is_so in closed)
    yield f"sandbox of the python backend: {told}"
    for name, does in sandbox["active"].items():
        yield f"  active   {name:<20} {does}"
    for name, layer in sandbox["missing"].items():
        yield f"  MISSING  {name:<20} {layer['does']}"
        yield f"           {'':<20} why: {layer['why']}"
        yield f"           {'':<20} remedy: {layer['remedy']}"
