"""How our reading of recorded replies agrees with what the recorded runtimes made of them.

``data/trajectories/replies.jsonl.gz`` holds the replies of 259 recorded runs, turn by turn, with
the code that the runtime of the time executed and the final answer that it took. Three kinds:

1. ``verbatim``: the whole reply. Blocks and answers are compared.
2. ``terminal``: the reply as a terminal showed it, wrapped at 76 columns. Blocks are compared as
   they stand, answers without regard to blanks and quotes.
3. ``code-field``: only the code was kept. It is compared as the block of a reply, with the fences
   that it has, or in a fence of ours.

Differences stand in ``data/trajectories/readings.json``, by reason. The table of
``docs/reference/protocols.md`` is made from the same comparison.
"""

import ast
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from rlm_fsm.fences import python_tree
from rlm_fsm.profile import Profile
from rlm_fsm.profiles import DSPY, PAPER, RLMS
from rlm_fsm.reply import Reply, TextAnswer, VariableAnswer, parse

FOLDER = Path(__file__).parent / "data" / "trajectories"
READINGS = FOLDER / "readings.json"
"""Turns that are read differently: ``{"blocks" | "answers": {reason: [turn, ...]}}``."""

PROFILES_OF = {
    "mit-rlm answer-dict": RLMS,
    "mit-rlm FINAL": PAPER,
    "rlmkit done()/await": RLMS,
    "dspy.RLM SUBMIT": DSPY,
    "fast-rlm FINAL()/FINAL_VAR() in code, await llm_query": PAPER,
}
"""The profile that a recorded run is read with, by its dialect."""

_FOOTER = re.compile(r"\s*↳ \d+ sub-call\(s\)\s*$")
"""What the terminal's panel put below code that had made subcalls."""
_CALLS = frozenset({"FINAL", "FINAL_VAR", "SUBMIT", "done"})
_CALL = re.compile(rf"^[ \t]*(?:{'|'.join(sorted(_CALLS))})\(", re.MULTILINE)


@dataclass(frozen=True)
class Turn:
    """One recorded turn."""

    run: dict[str, Any]
    number: int
    text: str
    """The reply; for ``code-field`` a reply made of the recorded code."""
    executed: tuple[str, ...]
    """What the recorded runtime ran, without blanks around it."""
    final: str | None
    """The answer that it took, and ended the run with."""

    @property
    def name(self) -> str:
        """``run/turn``."""
        return f"{self.run['id']}/{self.number}"

    @property
    def profile(self) -> Profile:
        """What it is read with."""
        return PROFILES_OF[self.run["dialect"]]

    @property
    def is_last(self) -> bool:
        """Whether the run ended with it."""
        return self.number == len(self.run["turns"]) - 1

    @cached_property
    def reply(self) -> Reply:
        """What we make of it; an empty `Reply` when it is neither code nor an answer."""
        return parse(self.text, self.profile).value_or(Reply())


@cache
def recorded_runs() -> tuple[dict[str, Any], ...]:
    """All recorded runs."""
    with gzip.open(FOLDER / "replies.jsonl.gz", "rt", encoding="utf-8") as lines:
        return tuple(json.loads(line) for line in lines)


@cache
def turns() -> tuple[Turn, ...]:
    """All recorded turns."""
    return tuple(
        _turn(run, number, turn)
        for run in recorded_runs()
        for number, turn in enumerate(run["turns"])
    )


def listed(what: str) -> dict[str, str]:
    """The reason of each turn that is known to differ, for ``blocks`` or ``answers``."""
    reasons = json.loads(READINGS.read_text(encoding="utf-8"))[what]
    return {name: reason for reason, names in reasons.items() for name in names}


def blocks_agree(turn: Turn) -> bool:
    """Whether our blocks are those that were run."""
    return tuple(block.strip() for block in turn.reply.blocks) == turn.executed


def answer_agrees(turn: Turn) -> bool:
    """Whether a turn's answer is found, where it has one, and none where it has none."""
    match turn.reply.answer:
        case TextAnswer(text):
            return turn.final is not None and _same(turn, text)
        case VariableAnswer():
            return turn.final is not None
        case None:
            return turn.final is None or gives_answer(turn)


def gives_answer(turn: Turn) -> bool:
    """Whether the code that we run gives an answer: by a call, or by ``answer["ready"]``."""
    return any(map(_gives_answer, turn.reply.blocks))


def table() -> str:
    """The table of agreement, a row a source."""
    head = (
        "| source | model | kind | runs | replies | blocks run | read alike | listed "
        "| final answers | found | listed |\n" + "|---" * 11 + "|\n"
    )
    sources = dict.fromkeys(run["source"] for run in recorded_runs())
    return head + "".join(_row(source) for source in sources)


def reasons_table() -> str:
    """The listed differences: how many for which reason."""
    known = json.loads(READINGS.read_text(encoding="utf-8"))
    rows = [
        f"| {what} | {len(names)} | {reason} | {', '.join(names)} |\n"
        for what, reasons in known.items()
        for reason, names in reasons.items()
    ]
    return "".join(["| what | turns | reason | run/turn |\n|---|---|---|---|\n", *rows])


def _row(source: str) -> str:
    runs = [run for run in recorded_runs() if run["source"] == source]
    own = [turn for turn in turns() if turn.run["source"] == source]
    finals = [turn for turn in own if turn.final is not None]
    models = Counter(run["model"].split(" (")[0].split("/")[-1] for run in runs)
    alike, answered = sum(map(blocks_agree, own)), sum(map(answer_agrees, finals))
    cells: Iterable[object] = (
        source.removeprefix("github:"),
        ", ".join(models),
        runs[0]["fidelity"],
        len(runs),
        len(own),
        sum(len(turn.executed) for turn in own),
        alike,
        len(own) - alike,
        len(finals),
        answered,
        sum(not answer_agrees(turn) for turn in own),
    )
    return f"| {' | '.join(map(str, cells))} |\n"


def _turn(run: dict[str, Any], number: int, turn: dict[str, Any]) -> Turn:
    if "reply" in turn:
        text = turn["reply"]
        executed = [_FOOTER.sub("", code).strip() for code in turn["executed"]]
    else:
        text = turn["code"] if turn["code"].startswith("```") else f"```python\n{turn['code']}\n```"
        executed = [code.strip() for code in _fields_code(text)]
    final = turn.get("final")
    if run["fidelity"] == "code-field" and number == len(run["turns"]) - 1:
        # Some kept the answer with the run only.
        final = run["final"]
    return Turn(run, number, text, tuple(executed), final)


def _fields_code(text: str) -> Iterator[str]:
    """The code of a recorded field: what stands before the first line that is a bare fence."""
    code, _, _ = text.partition("\n")[2].partition("\n```")
    if code.strip():
        yield code


def _same(turn: Turn, text: str) -> bool:
    assert turn.final is not None
    if turn.run["fidelity"] == "verbatim":
        return text == turn.final
    return _plain(text) == _plain(turn.final)


def _plain(text: str) -> str:
    """A text without the marks of the terminal: line ends, indentation, quotes around it."""
    return " ".join(text.split()).strip("\"'")


def _gives_answer(code: str) -> bool:
    tree = python_tree(code)
    if tree is None:
        # Wrapped by the terminal.
        return _CALL.search(code) is not None
    return any(_is_final(node) for node in ast.walk(tree))


def _is_final(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name in _CALLS
        case ast.Subscript(value=ast.Name(id="answer"), slice=ast.Constant(value="ready")):
            return True
        case ast.Assign(targets=[ast.Name(id="answer")], value=ast.Dict(keys=keys)):
            return any(isinstance(key, ast.Constant) and key.value == "ready" for key in keys)
        case _:
            return False
