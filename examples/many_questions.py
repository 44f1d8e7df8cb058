"""Many questions as one batch: a scripted model, no key, no server.

python examples/many_questions.py
"""

from rlm_fsm import Budget, FakeAdapter, Job, run_many

LETTERS = {
    "anna": "Dear Ben, the bridge opens on Monday. Anna",
    "carl": "Dear Dora, I paid 40 dollars for the lamp. Carl",
}

adapter = FakeAdapter()
adapter.add_rule("Your next action", "FINAL_VAR: first")
adapter.add_rule("Who is addressed?", "first = extract_after('Dear')")

jobs = [Job("Who is addressed?", text, id=name) for name, text in LETTERS.items()]
budget = Budget(max_total_tokens=200_000)
result = run_many(jobs, adapter=adapter, log=":memory:", budget=budget)
for row in result:
    print(row.id, row.status, row.output)
print(result.counts())
