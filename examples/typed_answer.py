"""An answer as an object: the model is told the shape, and what doesn't fit goes back to it.

A scripted model, no key, no server. Needs pydantic and jsonschema: pip install 'rlm-fsm[typed]'

python examples/typed_answer.py
"""

from pydantic import BaseModel

from rlm_fsm import FakeAdapter, replay, run


class Item(BaseModel):
    name: str
    price: float


class Bill(BaseModel):
    items: list[Item]
    total: float


TEXT = "Two teas at 2.50 each and a cake at 4."
TURNS = [
    # A subcall that returns data: its reply is checked too.
    "items = llm_query('List the items: ' + P, schema=list[dict])\n"
    "print(items)\nSUBMIT(items=items, total='nine')",
    # `total` did not fit, and the model was told so.
    "SUBMIT(items=items, total=sum(item['price'] for item in items))",
]
ITEMS = '[{"name": "two teas", "price": 5}, {"name": "cake", "price": 4}]'

subcalls = FakeAdapter()
subcalls.add_rule("List the items", f"Here they are: {ITEMS}")
model = FakeAdapter(script=TURNS)

result = run(
    "What is on the bill?",
    TEXT,
    adapter=model,
    subcall_adapter=subcalls,
    output_type=Bill,
)
bill: Bill = result.value
print(bill.total, [item.name for item in bill.items])
told = model.call_log[1][-1]["content"].splitlines()
print("the model was told:", next(line for line in told if line.startswith("- total")))
print(replay(result.run_id).value)  # without the type: plain data
