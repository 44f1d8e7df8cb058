"""Functions of your program for the model's code, one of which a person must approve first.

A scripted model, no key, no server: python examples/tools_and_approvals.py
"""

import tempfile
from pathlib import Path

from rlm_fsm import FakeAdapter, approve, resume, run, tool

ADDRESSES = {"Anna": "anna@example.org", "Ben": "ben@example.org"}


def address(name: str) -> str:
    """The address of a person."""
    return ADDRESSES[name]


@tool(needs_approval=True, timeout_s=10, idempotent=False)
def send(to: str, text: str) -> str:
    """Send a mail."""
    return f"sent to {to}"


adapter = FakeAdapter(
    script=[
        "```python\nprint(send(address('Ben'), peek(40)))\n```",
        "FINAL: Ben has it.",
    ]
)
tools = [address, send]

with tempfile.TemporaryDirectory() as folder:
    log = Path(folder) / "log.sqlite"
    result = run("Forward this to Ben.", "The bridge opens.", adapter=adapter, log=log, tools=tools)
    print(result.status)
    for request in result.approvals:
        print(request.call_id, request.tool, dict(request.arguments))
    approve(result.run_id, log=log, by="Anna")  # any process that has the log
    result = resume(result.run_id, log=log, adapter=adapter, tools=tools)
    for step in result.trace:
        if step.kind in ("tool", "approval"):
            print(step.kind, step.prompt_summary, "->", step.output)
    print(result.status, result.output)
