"""A host for functions with many subcalls, and rules by which it answers."""

import json
from collections.abc import Callable
from typing import Any

from effects.repls._combinators import programs
from effects.repls._functions import Answer, Ask, drive
from rlm_fsm.values import HostCall

FORECAST = {"tokens": 900, "cost_usd": None}


class Host:
    """Answers forecasts, and prompts by a rule; remembers what was asked."""

    def __init__(self, rule: Callable[[str], str] = lambda prompt: "ok") -> None:
        self.rule = rule
        self.forecasts: list[dict[str, int]] = []
        self.levels: list[list[str]] = []
        self.calls: list[HostCall] = []

    def __call__(self, ask: Ask) -> list[Answer]:
        calls = [HostCall(**call) for call in ask.calls]
        if calls[0].kind == "forecast":
            self.forecasts.append(json.loads(calls[0].prompt))
            return [("text", json.dumps({**FORECAST, "subcalls": self.forecasts[-1]["calls"]}))]
        assert ask.parallel
        self.calls += calls
        self.levels.append([call.prompt for call in calls])
        return [self._answer(call.prompt) for call in calls]

    def _answer(self, prompt: str) -> Answer:
        said = self.rule(prompt)
        return ("error", said[1:]) if said.startswith("!") else ("text", said)

    def run(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return drive(programs()[name](*args, **kwargs), self)

    @property
    def made(self) -> int:
        return sum(len(dict.fromkeys(level)) for level in self.levels)


def joined(prompt: str) -> str:
    """The texts of a prompt, put together."""
    return "+".join(part.partition("]\n")[2] for part in prompt.split("\n\n[")[1:])


def labelled(prompt: str) -> str:
    """Items that hold an x are odd, others even."""
    lines = [line.partition(": ") for line in prompt.splitlines() if line[:1].isdigit()]
    return "\n".join(f"{number}: {'odd' if 'x' in item else 'even'}" for number, _, item in lines)


def voting(*replies: str) -> Host:
    left = list(replies)
    return Host(lambda _: left.pop(0))
