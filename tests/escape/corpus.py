"""Payloads: what hostile code in a cell tries, by technique.

A file in `payloads` is a technique: what it is about, then payloads, each under a line ``== name``.
Lines ``#: key: value`` before the code say:

- `trips`: the canary that proves success, one of `CANARIES`;
- `needs`: what the machine must offer for it to succeed even without a sandbox;
- `uses`: helpers of `helpers.txt` that are put before the code;
- `limit_s`: the limit of its cell, in seconds;
- `layer`: what stops it in the `python` backend, one of `LAYERS`; for the whole file when it
  stands before the first payload.

Names in capitals are given to the code (see `Canaries.told` and `hosting.told`): an attacker is
assumed to know every path, port and number of a process, only no secret.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CANARIES = {
    "leak": "a secret of the host is in what the cell gave",
    "written": "something outside changed",
    "left": "something is left behind after the session",
    "contact": "a server, or the terminal, was reached",
    "alive": "a process outlives the session",
    "signalled": "the host or another process was ended or stopped",
    "meddled": "the host's own state was changed",
    "told": "the code says that it worked",
    "overtime": "the cell did not end at its limit",
    "flood": "the host was given more than it allows",
    "forged": "the next cell's result is a forged one",
    "wrecked": "the next cell does not work, nor one of a new session",
}
LAYERS = {
    "files": "files",
    "network": "network",
    "processes": "system call filter",
    "syscalls": "system call filter",
    "own root": "own root",
    "environment": "",
    "limits": "",
    "channel": "",
    "session": "",
}
"""Layer -> what the sandbox reports where it has it; nothing for what every system has."""
_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Payload:
    """One attempt."""

    technique: str
    name: str
    code: str
    trips: str
    layer: str
    needs: str | None = None
    limit_s: str = ""

    def __str__(self) -> str:
        return f"{self.technique}: {self.name}"


@cache
def load() -> tuple[Payload, ...]:
    """The whole corpus, in the order of its files."""
    return tuple(
        payload for path in sorted((_FOLDER / "payloads").glob("*.txt")) for payload in _read(path)
    )


def table() -> str:
    """The techniques and their numbers of payloads, in Markdown."""
    needy = sum(payload.needs is not None for payload in load())
    rows = ["| technique | what it tries | attempts |", "|---|---|---|"]
    for path in sorted((_FOLDER / "payloads").glob("*.txt")):
        (_, about), *payloads = _sections(path)
        what = about.splitlines()[0].rstrip(".")
        rows.append(f"| `{path.stem}` | {what} | {len(payloads)} |")
    rows.append(
        f"| together | {needy} of them take more than every machine gives | {len(load())} |"
    )
    return "\n".join(rows)


def _read(path: Path) -> Iterator[Payload]:
    (_, head), *sections = _sections(path)
    common = _settings(head)
    for name, text in sections:
        own = {**common, **_settings(text)}
        helpers = "".join(_helpers()[word] for word in own.pop("uses", "").split())
        if own["trips"] not in CANARIES:
            raise ValueError(f"{path.name}, {name}: no canary is called {own['trips']}")
        if own["layer"] not in LAYERS:
            raise ValueError(f"{path.name}, {name}: no layer is called {own['layer']}")
        code = "\n".join(line for line in text.splitlines() if not line.startswith("#: "))
        yield Payload(technique=path.stem, name=name, code=f"{helpers}{code.strip()}\n", **own)


@cache
def _helpers() -> dict[str, str]:
    return dict(_sections(_FOLDER / "helpers.txt")[1:])


@cache
def _sections(path: Path) -> list[tuple[str, str]]:
    """Names and texts; the first is what stands before the first name."""
    head, *rest = ("\n" + path.read_text("utf-8")).split("\n== ")
    named = (part.partition("\n") for part in rest)
    return [("", head.strip()), *((name.strip(), text.strip() + "\n") for name, _, text in named)]


def _settings(text: str) -> dict[str, str]:
    lines = (line[3:] for line in text.splitlines() if line.startswith("#: "))
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


if __name__ == "__main__":
    print(table())
