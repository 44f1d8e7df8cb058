"""What is sent of a conversation, turn after turn: ``python -m benchmarks.history``.

Each turn prints 1,800 characters, and a summary has 2,000. The table says how much all requests of
a run hold together, those for summaries included, the largest one, how many summaries there were,
how much of a request is the beginning of the next one: what a provider's prompt cache can answer
for, and how much that leaves to be computed anew. Counted, not timed: the same on each machine.
"""

from itertools import pairwise

from rlm_fsm import FakeAdapter, FakeRule, Policy, run

CELL = "```python\nprint('{n:03} '.ljust(1_800, 'x'))\n```"
SUMMARY = FakeRule("The conversation is getting too long", "What was found so far. " * 87)
CASES: tuple[tuple[str, dict[str, object]], ...] = (
    ("all of it", {}),
    ("max_history_tokens=8_000", {"max_history_tokens": 8_000}),
    ("the same, compaction=0.8", {"max_history_tokens": 8_000, "compaction": 0.8}),
    ("conversation_history=False", {"conversation_history": False}),
)
Request = list[dict[str, str]]


def sent(turns: int, options: dict[str, object]) -> list[Request]:
    """The requests of a run of so many turns."""
    script = [CELL.format(n=n) for n in range(turns - 1)] + ["FINAL: done"]
    adapter = FakeAdapter(script=script, rules=[SUMMARY])
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
    titles = f"{'turns':>6}{'sent in all':>14}{'largest':>10}{'summaries':>11}"
    print(f"{'history':<28}{titles}{'prefix':>9}{'new in all':>13}")
    for name, options in CASES:
        for turns in (20, 100):
            requests = sent(turns, options)
            shares = [shared(*pair) for pair in pairwise(requests)]
            sizes = [size(request) for request in requests]
            known = sum(share * chars for share, chars in zip(shares, sizes, strict=False))
            counts = f"{turns:>6}{sum(sizes):>14,}{max(sizes):>10,}{len(requests) - turns:>11}"
            share = sum(shares) / len(shares)
            print(f"{name:<28}{counts}{share:>9.1%}{sum(sizes) - round(known):>13,}")


if __name__ == "__main__":
    main()
