"""Every event of a run, as it becomes durable: what a viewer of your own would be handed.

python examples/watch_a_run.py
"""

import asyncio

from rlm_fsm import RLM, FakeAdapter, Policy

DOCUMENTS = [
    f"Report {n}: the pump in hall {n} was {'broken' if n % 3 else 'fine'}." for n in range(9)
]

SCRIPT = [
    "found = ask_chunks('Is the pump broken?', [d for _, _, [d] in ctx.chunk_documents(1)], "
    "parallel=True)\nbroken = sum(answer == 'yes' for answer in found)\nprint(broken)",
    "FINAL_VAR: broken",
]


async def main() -> None:
    """Run once and print what happens."""
    adapter = FakeAdapter(script=list(SCRIPT))
    adapter.add_rule("was broken", "yes")
    adapter.add_rule("was fine", "no")
    rlm = RLM(adapter, policy=Policy(max_subcalls=20), log=":memory:")
    async for appended in rlm.stream("How many pumps are broken?", DOCUMENTS):
        event = appended.event
        print(f"{appended.seq:3} {type(event).__name__:14} {getattr(event, 'call_id', '')}")


if __name__ == "__main__":
    asyncio.run(main())
