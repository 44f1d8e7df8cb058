"""The smallest run: a scripted model, no key, no server.

python examples/minimal.py
"""

from rlm_fsm import FakeAdapter, run

adapter = FakeAdapter(
    script=[
        "snippet = peek(80)\nsummary = llm_query(f'Summarize: {snippet}')",
        "FINAL_VAR: summary",
    ]
)
adapter.add_rule("You are a sub-LLM", "Prompts are data in a session.")

result = run("Summarize this.", "RLMs treat long prompts as environment state.", adapter=adapter)
print(result.output)
for step in result.trace:
    print(step.step_id, step.kind, step.depth)
