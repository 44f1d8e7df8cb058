"""The core stays pure, and the directions between the rooms hold."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FACE = {"__init__.py", "__main__.py", "adapters.py"}
PURE = {
    "__future__",
    "abc",
    "ast",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "itertools",
    "json",
    "keyword",
    "math",
    "operator",
    "re",
    "string",
    "textwrap",
    "tokenize",
    "types",
    "typing",
    "pyrsistent",
    "returns",
    "rlm_fsm",
}
SHELL = ("effects", "httpx", "sqlite3", "rich", "asyncio", "socket", "subprocess", "threading")
SIBLINGS = {"log", "adapters", "caches", "repls", "typed", "view"}
"""Folders of the shell that don't know each other."""
COMPOSED = {"interpreter", "api", "cli", "commands", "demo", "many"}
"""What puts them together; nothing below may import it."""


def imports(path: Path) -> list[tuple[int, str]]:
    """Line and dotted name of everything a file imports, in functions too, types aside."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} relative imports hide the direction"
            found.append((node.lineno, node.module or ""))
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "rlm_fsm").rglob("*.py")), ids=lambda p: p.name)
def test_the_core_imports_nothing_of_the_world(path: Path):
    if path.name in FACE:
        return
    wrong = [f"{line}: {name}" for line, name in imports(path) if name.split(".")[0] not in PURE]
    assert not wrong


@pytest.mark.parametrize("path", sorted((ROOT / "rlm_fsm").rglob("*.py")), ids=lambda p: p.name)
def test_the_core_calls_no_clock_no_chance_and_no_file(path: Path):
    banned = {"open", "print", "input", "eval", "exec", "__import__"}
    called = [
        f"{node.lineno}: {node.func.id}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in banned
    ]
    assert not called


def test_a_fresh_interpreter_that_loads_the_core_loads_no_shell():
    code = (
        "import sys, rlm_fsm, rlm_fsm.fold, rlm_fsm.trace, rlm_fsm.codec\n"
        f"print([name for name in {SHELL!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("room", sorted(SIBLINGS))
def test_the_rooms_of_the_shell_do_not_know_each_other(room: str):
    others = {f"effects.{other}" for other in (SIBLINGS | COMPOSED) - {room}}
    for path in sorted((ROOT / "effects" / room).rglob("*.py")):
        for line, name in imports(path):
            wrong = [other for other in others if name == other or name.startswith(other + ".")]
            # a view may name the types that it is handed: events and lists of runs
            if room == "view" and name in ("effects.interpreter", "effects.log.base"):
                continue
            assert not wrong, f"{path.relative_to(ROOT)}:{line} imports {name}"


def test_the_sandbox_imports_the_standard_library_and_itself():
    for path in sorted((ROOT / "effects" / "sandbox").glob("*.py")):
        for line, name in imports(path):
            top = name.split(".")[0]
            own = name.startswith("effects.sandbox") or (path.parent / f"{name}.py").exists()
            assert own or top in sys.stdlib_module_names, f"{path.name}:{line} imports {name}"


def test_the_interpreter_knows_no_concrete_backend():
    concrete = ("effects.log.sqlite", "effects.repls.python", "effects.repls.monty", "httpx")
    names = [name for _, name in imports(ROOT / "effects" / "interpreter.py")]
    assert not [name for name in names if name in concrete]


def core_map() -> list[str]:
    """The modules of the core in the order of the map in docs/explanation/design.md; what stands in
    parentheses stands before what is made of it."""
    page = (ROOT / "docs" / "explanation" / "design.md").read_text(encoding="utf-8")
    core = page.split("```text\n")[1].split("\neffects ")[0].removeprefix("rlm_fsm ")
    core = re.sub(r"(\w+)\(([^)]*)\)", r"\2 \1", core.split(": events ->")[0])
    return re.findall(r"\w+", core)


def core_imports(path: Path) -> list[tuple[int, str]]:
    """Line and name of each module of the core that a file imports."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "rlm_fsm":
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rlm_fsm."):
            found.append((node.lineno, (node.module or "").split(".")[1]))
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "rlm_fsm").rglob("*.py")), ids=lambda p: p.name)
def test_the_core_imports_only_what_stands_before_on_the_map(path: Path):
    """As docs/explanation/design.md draws it: arrows go one way."""
    order, room = core_map(), path.relative_to(ROOT / "rlm_fsm").with_suffix("").parts[0]
    if (path.name in FACE and room not in order) or room == "_version":
        return
    before = {*order[: order.index(room)], room}
    wrong = [f"{line}: {name}" for line, name in core_imports(path) if name not in before]
    assert wrong == []
