"""What the crash harness runs: small runs with a model that is a function of its messages.

Rules:

1. The model has no memory: the same messages always get the same reply. So a run that was killed
   and resumed must end exactly as one that wasn't.
2. No two calls of one run have the same messages. So the service that answers them can tell from
   its own record whether a call was made again (`key_of`).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from rlm_fsm import Policy

Messages = Sequence[Mapping[str, str]]

_BUSY = "total = 0\nfor n in range(150_000):\n    total += n % 7\nprint(total)"
"""Some milliseconds of computing in either backend, to be killed in."""
_TEXT = "one two three four five six seven eight nine ten " * 8

_SUMS_UP = "The conversation is getting too long"
_GIVES_UP = "FINAL: gave up at {digest}"
"""What the model says when its turns are used up: calls were refused, so it needed more."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A run: its context, its options, and what the model says in each turn."""

    name: str
    context: str
    turns: tuple[str, ...]
    """The root's replies. ``{digest}`` stands for a hash of all that the model was sent."""
    sub_turns: tuple[str, ...] = ()
    """The replies of a recursive sub-run."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def reply(self, messages: Messages) -> str:
        """What the model says."""
        system, newest = messages[0]["content"], messages[-1]["content"]
        if newest.startswith(_SUMS_UP):
            return f"summary {key_of(messages)}"
        turn = sum(message["role"] == "assistant" for message in messages)
        if "compaction" in self.options:  # a summary stands for several replies
            left = re.search(r"(\d+) turns are left", newest)
            turn = 0 if left is None else Policy().max_steps - int(left[1])
        if system.startswith("You are a sub-LLM of"):
            return key_of(messages)[:8]
        turns = self.sub_turns if system.startswith("You are a sub-LLM that") else self.turns
        said = turns[turn] if turn < len(turns) else _GIVES_UP
        return said.replace("{digest}", key_of(messages))


def key_of(messages: Messages) -> str:
    """Names a call by what it asks: the service's own name for it."""
    text = json.dumps([[message["role"], message["content"]] for message in messages])
    return sha256(text.encode()).hexdigest()[:16]


def _code(*lines: str) -> str:
    return "```python\n" + "\n".join(lines) + "\n```"


_TURNS = Scenario(
    name="turns",
    context=_TEXT,
    turns=(
        _code("words = P.split()", "print(len(words), ctx.find('t[a-z]+', regex=True)[:2])", _BUSY),
        _code(
            "by_length = {}",
            "for word in words:",
            "    by_length.setdefault(len(word), []).append(word)",
        ),
        _code("print(sorted(by_length))", "by_length['missing']"),
        _code(_BUSY, "longest = max(words, key=len)", "print(longest, total)"),
        "FINAL: {digest}",
    ),
)
_BATCH = Scenario(
    name="batch",
    context=_TEXT,
    turns=(
        _code("notes = llm_batch([f'note {n}: {P[n * 5:n * 5 + 40]}' for n in range(30)])"),
        "FINAL_VAR: notes",
    ),
    options={"max_concurrent_subcalls": 5},
)
_LOOP = Scenario(
    name="loop",
    context=_TEXT,
    turns=(
        _code(
            "said, steps = 'the start', []",
            "for n in range(8):",
            "    said = llm_query(f'step {n} after {said}')",
            "    steps.append(said)",
        ),
        _code("print(steps)", "more = llm_query('sum up ' + ' '.join(steps))"),
        "FINAL_VAR: more",
    ),
)
_RECURSION = Scenario(
    name="recursion",
    context="fig plum cherry",  # lengths differ, and so do the first messages of the sub-runs
    turns=(
        _code("found = llm_batch(['descend descend ' + word for word in P.split()])"),
        _code("print(found)", "last = llm_query('look once more into the word ' + found[-1])"),
        "FINAL: {digest}",
    ),
    sub_turns=(
        _code("rest = P.split(' ', 1)[1]", "answer = llm_query(rest)", "print(answer)"),
        "FINAL_VAR: answer",
    ),
    options={
        "recursive_subcalls": True,
        "max_recursion_depth": 2,
        "max_concurrent_subcalls": 2,
    },
)
_VARIABLE = Scenario(
    name="variable",
    context=_TEXT,
    turns=(
        "FINAL_VAR: report",  # it isn't there yet: the reply is refused
        _code("report = ' '.join(f'{n}:{word}' for n in range(80) for word in P.split())"),
        "FINAL_VAR: report",
    ),
)
_SUMMARIES = Scenario(
    name="summaries",
    context=_TEXT,
    turns=(
        *(_code(f"found = {n}", f"print('{n}' * 1_000, len(history))") for n in range(7)),
        "FINAL: {digest}",
    ),
    options={"max_history_tokens": 2_000, "compaction": 0.8},
)
SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (_TURNS, _BATCH, _LOOP, _RECURSION, _VARIABLE, _SUMMARIES)
}
