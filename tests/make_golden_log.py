"""Writes `data/logs/v<schema version>.db`: a log that every later version must read.

`python tests/make_golden_log.py` from the repository's root, once per schema version, before the
first release that writes it. A golden log is never edited and never made again: an existing one is
not overwritten. While no release has written this version, delete its three files and run it again.

The database is kept as the bytes that SQLite wrote, so that the file format, the header and the
triggers are tested too; the head file lies beside it, and what the log says in a JSON file.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from effects.log import SqliteLog  # noqa: E402
from effects.log.schema import SCHEMA_VERSION  # noqa: E402
from rlm_fsm import ModelResponse, Policy, Usage, fold, fork, run  # noqa: E402
from rlm_fsm.event import CodeExecuted  # noqa: E402
from rlm_fsm.ids import ROOT  # noqa: E402

LOGS = Path(__file__).parent / "data" / "logs"
TEXT = "\n".join(f"Ship {n} carried {n * 7} barrels. \N{SAILBOAT}" for n in range(1, 241))
"""The context: long enough to be kept compressed, with a character that isn't ASCII."""

SIMPLE = ["```python\nprint(len(P.splitlines()))\n```", "FINAL: 240"]
BATCH = [
    "```python\nparts = [P[i:i+3000] for i in range(0, 9000, 3000)]\n"
    "found = llm_batch([f'Sum up: {part}' for part in parts])\nprint(found, P[:2500])\n```",
    "```python\nanswer = llm_query('Join: ' + ' '.join(found))\nprint(answer)\n```",
    "FINAL_VAR: answer",
]
OTHER = [BATCH[0], "```python\nanswer = 'none'\n```", "FINAL_VAR: answer"]
SESSION = b"what a backend wrote of its session \0\xff"


class Model:
    """A model that takes these turns and answers whatever its code asks."""

    def __init__(self, turns: list[str]) -> None:
        self._turns = turns

    async def acomplete(self, messages: Any, *, max_tokens: int, temperature: float) -> Any:
        prompt = messages[-1]["content"]
        if prompt.startswith("Sum up: "):
            return ModelResponse("barrels " * 600, Usage(900, 50, 950))
        if prompt.startswith("Join: "):
            return ModelResponse("many barrels", Usage(60, 5, 65))
        turn = sum(message["role"] == "assistant" for message in messages)
        return ModelResponse(self._turns[turn], Usage(100, 10, 110))


def expectation(log: SqliteLog) -> dict[str, dict[str, Any]]:
    """What the log says of each run, folded."""
    told: dict[str, dict[str, Any]] = {}
    for info in reversed(log.runs()):
        state = fold(logged.event for logged in log.load(info.run_id))
        found = log._fetch(info.run_id, None)
        told[info.run_id] = {
            "query": info.query,
            "status": state.status,
            "output": state.output,
            "events": state.seq,
            "head_hash": found.stored.last_hash,
            "parent": info.parent,
            "parent_seq": info.parent_seq,
        }
    return told


def make(path: Path) -> None:
    """A small run, one with a batch and long texts, a fork of it, and a snapshot."""
    run("How many ships?", TEXT, adapter=Model(SIMPLE), log=path)
    long = run("What was carried?", TEXT, adapter=Model(BATCH), log=path)
    fork(long.run_id, log=path, at=11, adapter=Model(OTHER), policy=Policy(max_steps=5))
    with SqliteLog(path) as log:
        ends = [item.seq for item in log.load(long.run_id) if isinstance(item.event, CodeExecuted)]
        log.save_snapshot(long.run_id, ROOT, ends[-1], SESSION)


def main() -> int:
    """Make the golden log of the current schema; the exit code."""
    path = LOGS / f"v{SCHEMA_VERSION}.db"
    if path.exists():
        print(f"{path} exists: a golden log is never overwritten", file=sys.stderr)
        return 1
    LOGS.mkdir(exist_ok=True)
    make(path)
    path.with_name(path.name + "-locks").unlink()
    with SqliteLog(path) as log:
        text = json.dumps(expectation(log), indent=2)
    path.with_suffix(".json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
