"""What is sent of a conversation, turn after turn: ``python -m benchmarks.history``.

Each turn prints 1,800 characters. The table says how much all requests of a run hold together, the
largest one, and how much of a request is the beginning of the next one: what a provider's prompt
cache can answer for. Counted, not timed: the same on each machine.
"""

from itertools import pairwise

from rlm_fsm import FakeAdapter, Policy, run

CELL = "```python\nprint('{n:03} '.ljust(1_800, 'x'))\n```"
CASES: tuple[tuple[str, dict[str, object]], ...] = (
    ("all of it", {}),
    ("max_history_tokens=8_000", {"max_history_tokens": 8_000}),
    ("conversation_history=False", {"conversation_history": False}),
)
Request = list[dict[str, str]]


def sent(turns: int, options: dict[str, object]) -> list[Request]:
    """The requests of a run of so many turns."""
    script = [CELL.format(n=n) for n in range(turns - 1)] + ["FINAL: done"]
    adapter = FakeAdapter(script=script)
    policy = Policy(max_steps=turns, max_total_tokens=None)
    run("q", "some text", adapter=adapter, log=":memory:", policy=policy, **options)
    return [[dict(message) for message in request] for request in adapter.call_log]


def size(request: Request) -> int:
    """Characters of a request."""
    return sum(len(message["content"]) for message in request)


def shared(before: Request, after: Request) -> float:
    """The share of a request that is the beginning of the next one, in whole messages."""
    same = 0
    for old, new in zip(before, after, strict=False):
        if old != new:
            break
        same += len(old["content"])
    return same / size(before)


def main() -> None:
    print(f"{'history':<28}{'turns':>6}{'sent in all':>14}{'largest':>10}{'prefix':>9}")
    for name, options in CASES:
        for turns in (20, 40, 80):
            requests = sent(turns, options)
            shares = [shared(*pair) for pair in pairwise(requests)]
            sizes = [size(request) for request in requests]
            share = sum(shares) / len(shares)
            print(f"{name:<28}{turns:>6}{sum(sizes):>14,}{max(sizes):>10,}{share:>9.1%}")


if __name__ == "__main__":
    main()
