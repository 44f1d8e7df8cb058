"""The documents say what is true: generated pages, examples, links, the README's snippet."""

import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from rlm_fsm import RLM

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_generated_pages_are_what_the_code_says():
    done = subprocess.run(
        [sys.executable, "docs/make_pages.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_argument_of_a_run_has_a_row():
    page = (ROOT / "docs/reference/options.md").read_text(encoding="utf-8")
    told = page.split("\n## Policy", 1)[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", told, re.MULTILINE))
    parameters = inspect.signature(RLM).parameters
    assert {name: rows.get(name) for name in parameters} == {
        name: repr(parameter.default) for name, parameter in parameters.items()
    }


def test_the_readmes_example_prints_what_the_readme_says(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## As a library", 1)[1]
    code, output = re.findall(r"```(?:python|text)\n(.*?)```", section, re.DOTALL)[:2]
    file = tmp_path / "example.py"
    file.write_text(code, encoding="utf-8")
    runpy.run_path(str(file))
    assert capsys.readouterr().out == output


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_every_example_runs(path: Path, capsys: pytest.CaptureFixture[str]):
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), target


def test_the_readme_has_the_two_commands_in_one_line_each():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("Quick start", "Tests"):
        section = readme.split(f"## {name}\n", 1)[1].split("\n## ", 1)[0]
        first = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
        assert first is not None
        assert len(first.group(1).strip().splitlines()) == 1
