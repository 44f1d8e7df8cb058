"""Whole runs with types: real sessions, a real log, both backends."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from rlm_fsm import FakeAdapter, SqliteLog, UsageError, fork, replay, resume, run, runs
from rlm_fsm.event import AnswerChecked, CodePaused, ModelReplied

BACKENDS = pytest.mark.parametrize("backend", ["python", "monty"])


class Item(BaseModel):
    name: str
    price: float


class Bill(BaseModel):
    items: list[Item]
    total: float


@dataclass
class Point:
    x: int
    y: int = 0


BILL = Bill(items=[Item(name="tea", price=2.5)], total=2.5)
VALUE = "{'items': [{'name': 'tea', 'price': 2.5}], 'total': 2.5}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


def code(text: str) -> str:
    return f"```python\n{text}\n```"


class Power(BaseException):
    """The process is gone."""


class DiesBefore:
    """A log that dies when an event of a kind is to be appended."""

    def __init__(self, log: SqliteLog, kind: type) -> None:
        self.log, self.kind = log, kind

    def __getattr__(self, name):
        return getattr(self.log, name)

    def append(self, run_id, expected_seq, events):
        if any(isinstance(event, self.kind) for event in events):
            raise Power
        return self.log.append(run_id, expected_seq, events)


def dies(path: Path, kind: type, adapter: FakeAdapter, **options) -> str:
    """A run that dies before an event of a kind; its id."""
    log = SqliteLog(path, durability="process")
    try:
        with pytest.raises(Power):
            run("q", "text", adapter=adapter, log=DiesBefore(log, kind), **options)
    finally:
        log.close()
    return runs(path)[0].run_id


def events_of(path: Path, run_id: str) -> list:
    log = SqliteLog(path)
    try:
        return [logged.event for logged in log.load(run_id)]
    finally:
        log.close()


@BACKENDS
@pytest.mark.parametrize(
    "turns",
    [
        [code(f"SUBMIT(**{VALUE})")],
        [code(f"SUBMIT({VALUE})")],
        [code(f"found = {VALUE}\nFINAL_VAR('found')")],
        [code(f"answer['content'] = {VALUE}\nanswer['ready'] = True")],
        [code(f"found = {VALUE}"), "FINAL_VAR: found"],
        [f"FINAL: {VALUE}"],
    ],
    ids=["fields", "SUBMIT", "FINAL_VAR()", "answer", "FINAL_VAR:", "FINAL:"],
)
def test_every_form_of_an_answer_gives_the_object(turns: list[str], backend: str, path: Path):
    adapter = FakeAdapter(script=turns)
    result = run("q", "text", adapter=adapter, output_type=Bill, repl_backend=backend, log=path)
    assert (result.status, result.value) == ("finished", BILL)
    assert replay(result.run_id, log=path).value == BILL.model_dump()
    assert replay(result.run_id, log=path, output_type=Bill).value == BILL
    assert resume(result.run_id, log=path, output_type=Bill).value == BILL


def test_a_dataclass_of_the_code_is_its_fields(path: Path):
    cell = "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nSUBMIT(P(3))"
    result = run("q", "t", adapter=FakeAdapter(script=[code(cell)]), output_type=Point, log=path)
    assert result.value == Point(3)


def test_the_model_is_told_the_shape_and_what_does_not_fit(path: Path):
    adapter = FakeAdapter(script=["FINAL: {'items': [], 'total': 'much'}", f"FINAL: {VALUE}"])
    result = run("q", "text", adapter=adapter, output_type=Bill, log=path)
    assert result.value == BILL
    first, second = adapter.call_log
    assert '"total"' in first[1]["content"]
    assert "JSON schema" in first[1]["content"]
    assert "- total: Input should be a valid number" in second[-1]["content"]
    assert 'found "much"' in second[-1]["content"]


def test_too_many_answers_that_do_not_fit_end_the_run_with_the_last_one(path: Path):
    adapter = FakeAdapter(script=["FINAL: one", "FINAL: two", "FINAL: three"])
    result = run("q", "t", adapter=adapter, output_type=int, output_retries=1, log=path)
    assert (result.status, result.value, result.output) == ("failed", None, "two")
    assert "no answer fitted its type, 2 tried" in (result.error or "")
    again = resume(
        result.run_id, log=path, adapter=FakeAdapter(script=["FINAL: 3"]), output_type=int
    )
    assert (again.status, again.value) == ("finished", 3)


def test_a_limit_ends_with_a_value_only_if_the_answer_fits(path: Path):
    from rlm_fsm import Policy

    for last, value in (("FINAL: 8", 8), ("FINAL: eight", None)):
        adapter = FakeAdapter(script=[code("print(1)"), last])
        policy = Policy(max_steps=1)
        result = run("q", "t", adapter=adapter, output_type=int, policy=policy, log=path)
        assert (result.status, result.value) == ("partial", value)


def test_the_fallback_codes_answer_must_fit_too(path: Path):
    for fallback, status, value in (("SUBMIT(5)", "finished", 5), ("SUBMIT('x')", "failed", None)):
        result = run(
            "q",
            "t",
            adapter=FakeAdapter(script=["FINAL: one"]),
            output_type=int,
            output_retries=0,
            fallback_code=fallback,
            log=path,
        )
        assert (result.status, result.value) == (status, value)


def test_a_run_that_dies_in_the_middle_of_a_check_goes_on_with_it(path: Path):
    name = dies(path, AnswerChecked, FakeAdapter(script=["FINAL: 7"]), output_type=int)
    assert isinstance(events_of(path, name)[-1], ModelReplied)
    result = resume(name, log=path, adapter=FakeAdapter(script=[]), output_type=int)
    assert (result.status, result.value) == ("finished", 7)


def test_going_on_without_the_type_or_with_another_is_refused(path: Path):
    name = dies(path, AnswerChecked, FakeAdapter(script=["FINAL: 7"]), output_type=int)
    for given, told in ((None, "pass output_type= again"), (str, "isn't what run")):
        with pytest.raises(UsageError, match=told):
            resume(name, log=path, adapter=FakeAdapter(script=[]), output_type=given)
    with pytest.raises(UsageError, match="pass output_type= again"):
        fork(name, at=3, log=path, adapter=FakeAdapter(script=[]))
    assert replay(name, log=path).value is None


def test_a_fork_at_the_beginning_may_have_another_type(path: Path):
    first = run("q", "t", adapter=FakeAdapter(script=["FINAL: 7"]), output_type=int, log=path)
    adapter = FakeAdapter(script=["FINAL: ['a']"])
    result = fork(first.run_id, at=1, log=path, adapter=adapter, output_type=list[str])
    assert result.value == ["a"]


def test_runs_without_a_type_have_no_value(path: Path):
    result = run("q", "t", adapter=FakeAdapter(script=["FINAL: 7"]), log=path)
    assert (result.output, result.value) == ("7", None)


# Subcalls

ASKS = (
    "x = llm_query('how many', schema=int)\n"
    "y = llm_batch(['one', 'two'], schema=list[str])\n"
    "z = llm_query('what', schema={'type': 'object', 'required': ['n']})\n"
    "SUBMIT([x + 1, y[1][0], z['n']])"
)


def sub_model() -> FakeAdapter:
    adapter = FakeAdapter()
    adapter.add_rule("An earlier reply", "7")
    adapter.add_rule("how many", "seven")
    adapter.add_rule("one\n", "['a']")
    adapter.add_rule("two\n", '```json\n["b"]\n```')
    adapter.add_rule("what", 'It is {"n": 3}.')
    return adapter


@BACKENDS
def test_subcalls_with_a_schema_return_data(backend: str, path: Path):
    sub = sub_model()
    result = run(
        "q",
        "text",
        adapter=FakeAdapter(script=[code(ASKS)]),
        subcall_adapter=sub,
        repl_backend=backend,
        log=path,
    )
    assert result.output == "[8, 'b', 3]"
    assert result.usage.subcalls == 4
    prompts = [messages[-1]["content"] for messages in sub.call_log]
    assert len(prompts) == 5
    assert '{"type":"integer"}' in prompts[0]
    assert "seven" in prompts[1]
    assert replay(result.run_id, log=path, run_code=True).output == result.output


@BACKENDS
@pytest.mark.parametrize("kind", [AnswerChecked, ModelReplied])
def test_a_run_that_dies_within_typed_subcalls_goes_on(kind: type, backend: str, path: Path):
    def options() -> dict:
        return {"subcall_adapter": sub_model()}

    script = [code(ASKS)]
    adapter = FakeAdapter(script=script)
    name = dies(path, kind, adapter, repl_backend=backend, **options())
    left = script if kind is ModelReplied else []
    result = resume(name, log=path, adapter=FakeAdapter(script=left), **options())
    assert result.output == "[8, 'b', 3]"


@BACKENDS
def test_a_reply_that_never_fits_is_an_error_in_the_cell(backend: str, path: Path):
    cell = (
        "try:\n    llm_query('how many', schema=int)\n"
        "except SubcallError as error:\n    told = str(error)\n"
        "both = llm_batch(['how', 'why'], schema=int, on_error='return')\n"
        "SUBMIT([told, both])"
    )
    sub = FakeAdapter()
    sub.add_rule("why", "1")
    sub.add_rule("how", "seven")
    result = run(
        "q",
        "t",
        adapter=FakeAdapter(script=[code(cell)]),
        subcall_adapter=sub,
        repl_backend=backend,
        output_type=tuple[str, list[str | int]],
        log=path,
    )
    told, (failed, fitting) = result.value
    assert "asked 2 times" in told
    assert 'found "seven"' in told
    assert failed.startswith("[ERROR] ")
    assert fitting == 1


@BACKENDS
def test_a_schema_that_cant_be_used_costs_nothing(backend: str, path: Path):
    cell = (
        "told = []\n"
        "for schema in ({'type': 'intt'}, {'pattern': 'a'}):\n"
        "    try:\n        llm_query('how', schema=schema)\n"
        "    except SubcallError as error:\n        told.append(str(error))\n"
        "SUBMIT(told)"
    )
    sub = FakeAdapter()
    result = run(
        "q",
        "t",
        adapter=FakeAdapter(script=[code(cell)]),
        subcall_adapter=sub,
        repl_backend=backend,
        output_type=list[str],
        log=path,
    )
    assert "no JSON schema" in result.value[0]
    assert "pattern" in result.value[1]
    assert sub.call_log == []
    assert any(
        isinstance(e, CodePaused) and e.calls[0].fault for e in events_of(path, result.run_id)
    )
    assert replay(result.run_id, log=path, run_code=True).status == "finished"


def test_a_call_with_a_schema_is_a_plain_call_where_others_recurse(path: Path):
    adapter = FakeAdapter(script=[code("SUBMIT(llm_query('how many', schema=int))")])
    sub = FakeAdapter()
    sub.add_rule("how many", "7")
    result = run("q", "t", adapter=adapter, subcall_adapter=sub, recursive_subcalls=True, log=path)
    assert result.output == "7"
    assert len(sub.call_log) == 1


def test_rlm_query_takes_no_schema(path: Path):
    cell = (
        "try:\n    rlm_query('x', schema=int)\nexcept TypeError as error:\n    SUBMIT(str(error))"
    )
    result = run("q", "t", adapter=FakeAdapter(script=[code(cell)]), log=path)
    assert "takes no schema" in result.output


@pytest.mark.parametrize("edit", [None, lambda event: replace(event, query="another")])
def test_a_fork_at_the_first_event_has_to_be_given_the_type_too(edit: Any, path: Path):
    """Before anything is paid for, and before anything of it is in the log."""
    first = run("q", "t", adapter=FakeAdapter(script=["FINAL: 5"]), output_type=int, log=path)
    adapter = FakeAdapter(script=["FINAL: 6"])
    with pytest.raises(UsageError, match="output_type"):
        fork(first.run_id, at=1, edit=edit, adapter=adapter, log=path)
    assert adapter.call_log == []
    assert len(runs(path)) == 1
    forked = fork(first.run_id, at=1, edit=edit, adapter=adapter, output_type=int, log=path)
    assert forked.value == 6
