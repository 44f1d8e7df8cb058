"""The trace: hand-made logs and the steps that a person reads in them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_fsm.errors import UsageError
from rlm_fsm.event import (
    Cancelled,
    CodeExecuted,
    CodePaused,
    EffectStarted,
    Event,
    GuardTripped,
    HistoryCompacted,
    LimitReached,
    ModelFailed,
    ModelReplied,
    ReplFailed,
    RunFinished,
    RunStarted,
    VariableRead,
)
from rlm_fsm.ids import ROOT, CallId, FrameId
from rlm_fsm.options import Options
from rlm_fsm.trace import PROMPT_CHARS, Trace, TraceStep, trace
from rlm_fsm.values import CodeError, ContextInfo, HostCall, Usage, text_hash

CHILD = FrameId("0.1")
GRANDCHILD = FrameId("0.1.2")


def started(query: str = "Who?") -> RunStarted:
    return RunStarted(
        query=query, context=ContextInfo(kind="string", chars=9, documents=1), options=Options()
    )


def intent(call_id: str, frame: FrameId = ROOT) -> EffectStarted:
    return EffectStarted(
        frame=frame, call_id=CallId(call_id), effect="CallModel", effect_hash="0" * 64
    )


def replied(call_id: str, text: str, frame: FrameId = ROOT, clock_s: float = 0.0) -> ModelReplied:
    return ModelReplied(
        frame=frame,
        call_id=CallId(call_id),
        text=text,
        usage=Usage(3, 2, 5),
        model_id="m-1",
        elapsed_s=0.5,
        clock_s=clock_s,
    )


def failed(call_id: str, frame: FrameId = ROOT) -> ModelFailed:
    return ModelFailed(
        frame=frame, call_id=CallId(call_id), error="timeout", message="no reply", elapsed_s=60.0
    )


def paused(
    call_id: str, *calls: str | HostCall, frame: FrameId = ROOT, clock_s: float = 0.0
) -> CodePaused:
    asked = tuple(
        call if isinstance(call, HostCall) else HostCall(fn="llm_batch", prompt=call)
        for call in calls
    )
    return CodePaused(
        frame=frame, call_id=CallId(call_id), calls=asked, elapsed_s=0.25, clock_s=clock_s
    )


def executed(
    call_id: str,
    stdout: str = "",
    frame: FrameId = ROOT,
    error: CodeError | None = None,
    clock_s: float = 0.0,
) -> CodeExecuted:
    return CodeExecuted(
        frame=frame,
        call_id=CallId(call_id),
        stdout=stdout,
        stdout_chars=len(stdout),
        error=error,
        elapsed_s=0.5,
        clock_s=clock_s,
    )


def kinds(events: list[Event]) -> list[tuple[str, int]]:
    return [(step.kind, step.depth) for step in trace(events)]


def test_a_run_without_subcalls_is_turns_and_cells() -> None:
    code = "```python\nx = 1\n```\nthen\n```python\nprint(x)\n```"
    found = trace(
        [
            started("How many?"),
            intent("0.m1"),
            replied("0.m1", code),
            executed("0.c1"),
            executed("0.c2", "1\n"),
            intent("0.m2"),
            replied("0.m2", "FINAL_VAR: x"),
            VariableRead(frame=ROOT, call_id=CallId("0.r1"), name="x", text="1"),
            RunFinished(status="finished", output="1"),
        ],
        run_id="r-1",
    )
    assert (found.run_id, found.query, len(found)) == ("r-1", "How many?", 4)
    turn, first, second, last = found
    assert turn == TraceStep(
        step_id=1,
        kind="root_call",
        frame="0",
        prompt_summary="How many?",
        code="x = 1\n\nprint(x)",
        output=code,
        usage=Usage(3, 2, 5),
        model="m-1",
        elapsed=0.5,
        output_hash=text_hash(code),
    )
    assert first == TraceStep(
        step_id=2, kind="repl_exec", frame="0", code="x = 1", stdout="", elapsed=0.5
    )
    assert (second.step_id, second.code, second.stdout) == (3, "print(x)", "1\n")
    assert (last.prompt_summary, last.code) == ("output of 0.c1\noutput of 0.c2", None)


def test_a_cell_that_raised_has_its_error_and_all_its_output() -> None:
    output = "line\n" * 10_000
    error = CodeError(kind="ValueError", message="no", traceback="...\nValueError: no")
    step = trace([started(), replied("0.m1", "x = f()"), executed("0.c1", output, error=error)])
    assert step.steps[1].stdout == output
    assert step.steps[1].error == "...\nValueError: no"


def test_blocks_that_a_reply_left_unrun_are_not_taken_for_those_of_the_next() -> None:
    two = "```python\nf()\n```\n```python\ng()\n```"
    error = CodeError(kind="NameError", message="f")
    found = trace(
        [
            started(),
            replied("0.m1", two),
            executed("0.c1", error=error),
            replied("0.m2", "h()"),
            executed("0.c2"),
        ]
    )
    assert [step.code for step in found if step.kind == "repl_exec"] == ["f()", "h()"]


def test_a_batch_is_a_group_whose_steps_stand_in_the_order_of_their_ends() -> None:
    found = trace(
        [
            started(),
            replied("0.m1", "answers = llm_batch(['a', 'b', 'c'])"),
            paused("0.c1", "a", "b", "c"),
            *(intent(f"0.{n}") for n in (1, 2, 3)),
            replied("0.3", "C"),
            failed("0.1"),
            replied("0.2", "B"),
            executed("0.c1", "done"),
        ]
    )
    batch = found.steps[1:4]
    assert [step.kind for step in found] == ["root_call", *["subcall"] * 3, "repl_exec"]
    assert [(s.prompt_summary, s.output, s.error) for s in batch] == [
        ("c", "C", None),
        ("a", None, "timeout: no reply"),
        ("b", "B", None),
    ]
    assert [(s.parallel_group_id, s.parallel_index, s.parallel_total) for s in batch] == [
        ("0.c1#1", 2, 3),
        ("0.c1#1", 0, 3),
        ("0.c1#1", 1, 3),
    ]
    assert [s.depth for s in found] == [0, 1, 1, 1, 0]
    assert batch[0].input_hash == text_hash("c")
    assert batch[0].output_hash == text_hash("C")
    assert batch[1].usage is None
    assert found.steps[4].elapsed == 0.75


def test_a_merged_call_takes_a_number_but_has_no_step() -> None:
    found = trace(
        [
            started(),
            replied("0.m1", "llm_batch(['a', 'a', 'b']); llm_query('c')"),
            paused("0.c1", "a", "a", "b"),
            replied("0.1", "A"),
            replied("0.3", "B"),
            paused("0.c1", "c"),
            replied("0.4", "C"),
            executed("0.c1"),
        ]
    )
    calls = [s for s in found if s.kind == "subcall"]
    assert [(s.prompt_summary, s.output, s.parallel_group_id, s.parallel_index) for s in calls] == [
        ("a", "A", "0.c1#1", 0),
        ("b", "B", "0.c1#1", 2),
        ("c", "C", "0.c1#2", 0),
    ]


def test_a_prompt_is_shown_by_its_head_and_never_twice() -> None:
    prompt = "needle " + "x" * 100_000
    found = trace(
        [started(), replied("0.m1", "llm_query(P)"), paused("0.c1", prompt), failed("0.1")]
    )
    shown = found.steps[1]
    assert shown.prompt_summary == prompt[:PROMPT_CHARS]
    assert shown.input_hash == text_hash(prompt)
    assert found.to_json().count("needle") == 1


def test_a_sub_run_stands_before_its_steps_with_its_true_depth() -> None:
    call = HostCall(fn="ask", prompt="Question: who?\nSnippet: ...", question="who?")
    events: list[Event] = [
        started(),
        replied("0.m1", "r = ask('who?', P)"),
        paused("0.c1", call, clock_s=1.0),
        intent("0.1.m1", CHILD),
        replied("0.1.m1", "llm_query('leaf')\nllm_query('deep')", CHILD, clock_s=2.0),
        paused("0.1.c1", "leaf", frame=CHILD),
        replied("0.1.1", "leaf!", CHILD),
        paused("0.1.c1", "deep", frame=CHILD),
        intent("0.1.2.m1", GRANDCHILD),
        replied("0.1.2.m1", "print(P)", GRANDCHILD),
        executed("0.1.2.c1", "text", GRANDCHILD),
        replied("0.1.2.m2", "FINAL: deep!", GRANDCHILD),
        executed("0.1.c1", "done", CHILD, clock_s=5.0),
        replied("0.1.m2", "FINAL: nobody", CHILD, clock_s=6.0),
        executed("0.c1", "nobody"),
    ]
    assert kinds(events) == [
        ("root_call", 0),
        ("recursive_subcall", 1),
        ("sub_root_call", 1),
        ("sub_subcall", 2),
        ("recursive_subcall", 2),
        ("sub_root_call", 2),
        ("sub_repl_exec", 2),
        ("sub_root_call", 2),
        ("sub_repl_exec", 1),
        ("sub_root_call", 1),
        ("repl_exec", 0),
    ]
    found = trace(events)
    child, turn = found.steps[1:3]
    assert [step.step_id for step in found] == list(range(1, 12))
    assert (child.output, child.output_hash) == ("nobody", text_hash("nobody"))
    assert (child.prompt_summary, child.elapsed) == (call.prompt, 5.0)
    assert (child.usage, child.model, child.parallel_group_id) == (None, None, "0.c1#1")
    assert turn.prompt_summary == "who?"
    assert found.steps[4].output == "deep!"
    billed = [step.usage.total_tokens for step in found if step.usage]
    assert sum(billed) == 5 * sum(isinstance(event, ModelReplied) for event in events)


@pytest.mark.parametrize(
    ("last", "output", "error"),
    [
        ([replied("0.1.m2", "FINAL_VAR: x", CHILD)], None, None),
        (
            [
                replied("0.1.m2", "FINAL_VAR: x", CHILD),
                VariableRead(frame=CHILD, call_id=CallId("0.1.r1"), name="x", text="7"),
            ],
            "7",
            None,
        ),
        (
            [
                replied("0.1.m2", "FINAL_VAR: x", CHILD),
                VariableRead(frame=CHILD, call_id=CallId("0.1.r1"), name="x"),
            ],
            None,
            "there is no variable x",
        ),
        ([failed("0.1.m2", CHILD)], None, "timeout: no reply"),
        (
            [LimitReached(frame=CHILD, limit="max_total_tokens", allowed=9, used=10)],
            None,
            "max_total_tokens: 10 of 9",
        ),
        (
            [
                LimitReached(frame=CHILD, limit="max_steps", allowed=3, used=4),
                replied("0.1.m2", "<think>hm</think>Perhaps 7.", CHILD),
            ],
            "Perhaps 7.",
            None,
        ),
        (
            [
                LimitReached(frame=CHILD, limit="max_steps", allowed=3, used=4),
                failed("0.1.m2", CHILD),
            ],
            "printed",
            None,
        ),
        ([GuardTripped(frame=CHILD, guard="no_code", reason="No code.")], None, "No code."),
        (
            [ReplFailed(frame=CHILD, call_id=CallId("0.1.c2"), message="no process")],
            None,
            "no process",
        ),
        (
            [
                replied("0.1.m2", "x = f()\nFINAL: 7", CHILD),
                executed("0.1.c2", "", CHILD, CodeError(kind="NameError", message="f")),
            ],
            None,
            "NameError: f",
        ),
        (
            [replied("0.1.m2", "x = f()\nFINAL: 7", CHILD), executed("0.1.c2", "", CHILD)],
            "7",
            None,
        ),
    ],
)
def test_a_sub_run_ends_with_what_its_last_event_says(
    last: list[Event], output: str | None, error: str | None
) -> None:
    begun: list[Event] = [
        started(),
        replied("0.m1", "llm_query('a')"),
        paused("0.c1", "a"),
        replied("0.1.m1", "print('printed')", CHILD),
        executed("0.1.c1", "printed\n", CHILD),
    ]
    step = trace(begun + last).steps[1]
    assert (step.kind, step.output, step.error) == ("recursive_subcall", output, error)


def test_refusals_limits_and_the_end_by_a_person_are_guards() -> None:
    found = trace(
        [
            started(),
            replied("0.m1", "Hm."),
            GuardTripped(frame=ROOT, guard="no_code", reason="Write code."),
            replied("0.m2", "print(1)"),
            executed("0.c1", "1"),
            LimitReached(frame=ROOT, limit="max_total_tokens", allowed=1000, used=1200.5),
            replied("0.m3", "one"),
            Cancelled(reason="Ctrl-C"),
        ]
    )
    guards = [step for step in found if step.kind == "guard"]
    assert [(step.prompt_summary, step.output) for step in guards] == [
        ("no_code", "Write code."),
        ("max_total_tokens", "max_total_tokens: 1,200.5 of 1,000"),
        ("cancelled", "Ctrl-C"),
    ]
    turns = [step.prompt_summary for step in found if step.kind == "root_call"]
    assert turns == ["Who?", "Write code.", "output of 0.c1\nlimit reached: max_total_tokens"]


def test_what_befalls_a_sub_run_has_the_kind_that_it_has_in_the_root() -> None:
    found = trace(
        [
            started(),
            replied("0.m1", "ask('who?', P)"),
            paused("0.c1", "who?"),
            replied("0.1.m1", "print(P)", CHILD),
            executed("0.1.c1", "text", CHILD),
            replied("0.1.s1", "Read.", CHILD),
            HistoryCompacted(frame=CHILD, call_id=CallId("0.1.s1"), messages=2),
            replied("0.1.m2", "Hm.", CHILD),
            GuardTripped(frame=CHILD, guard="no_code", reason="Write code."),
            HistoryCompacted(frame=CHILD, call_id=CallId("0.1.s2"), failure="no budget"),
        ]
    )
    assert [(step.kind, step.depth, step.frame) for step in found][3:] == [
        ("sub_repl_exec", 1, "0.1"),
        ("compaction", 1, "0.1"),
        ("sub_root_call", 1, "0.1"),
        ("guard", 1, "0.1"),
        ("compaction", 1, "0.1"),
    ]


def test_a_session_that_could_not_be_had_is_a_cell_with_an_error() -> None:
    lost = ReplFailed(frame=ROOT, call_id=CallId("0.c1"), message="no process")
    found = trace([started(), replied("0.m1", "print(1)"), lost])
    assert (found.steps[1].kind, found.steps[1].error) == ("repl_exec", "no process")


def test_what_has_not_ended_has_no_step() -> None:
    begun: list[Event] = [started(), intent("0.m1")]
    assert len(trace(begun)) == 0
    begun += [replied("0.m1", "llm_query('a')"), paused("0.c1", "a"), intent("0.1")]
    assert kinds(begun) == [("root_call", 0)]
    assert len(trace([])) == 0


def test_a_cache_hit_is_marked() -> None:
    hit = ModelReplied(frame=ROOT, call_id=CallId("0.1"), text="A", cache_hit=True)
    found = trace([started(), replied("0.m1", "llm_query('a')"), paused("0.c1", "a"), hit])
    assert [step.cache_hit for step in found] == [False, True]


_TEXT = st.none() | st.text(max_size=20)
_USAGE = st.builds(
    lambda prompt, completion, estimated: Usage(
        prompt, completion, prompt + completion, estimated=estimated
    ),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.booleans(),
)
_STEPS = st.builds(
    TraceStep,
    step_id=st.integers(1, 10**6),
    kind=st.sampled_from(["root_call", "repl_exec", "subcall", "guard", "retrieval"]),
    depth=st.integers(0, 9),
    prompt_summary=_TEXT,
    code=_TEXT,
    output=_TEXT,
    stdout=_TEXT,
    error=_TEXT,
    usage=st.none() | _USAGE,
    model=_TEXT,
    elapsed=st.none() | st.floats(0, 1e9),
    cache_hit=st.booleans(),
    input_hash=_TEXT,
    output_hash=_TEXT,
    parallel_group_id=_TEXT,
    parallel_index=st.none() | st.integers(0, 99),
    parallel_total=st.none() | st.integers(1, 99),
)


@given(st.builds(Trace, st.lists(_STEPS, max_size=5).map(tuple), st.text(), st.text()))
@settings(deadline=None)
def test_a_trace_survives_json(given_trace: Trace) -> None:
    for indent in (2, None):
        assert Trace.from_json(given_trace.to_json(indent)) == given_trace


def test_a_lone_surrogate_survives_json() -> None:
    odd = Trace((TraceStep(step_id=1, kind="root_call", output="\ud800"),))
    written = odd.to_json()
    assert written.isascii()
    assert Trace.from_json(written) == odd


def test_a_plain_array_of_steps_is_a_trace_too() -> None:
    steps = [
        {"step_id": 1, "kind": "root_call", "usage": {"prompt_tokens": 2, "completion_tokens": 1}},
        {"step_id": 2, "kind": "repl_exec", "depth": 0, "cache_key": "unknown", "stdout": None},
    ]
    assert Trace.from_json(json.dumps(steps)).steps == (
        TraceStep(step_id=1, kind="root_call", usage=Usage(2, 1, 3)),
        TraceStep(step_id=2, kind="repl_exec"),
    )


@pytest.mark.parametrize(
    "text", ["", "{", "3", "{}", '{"steps": 3}', "[3]", '[{"kind": "subcall"}]', "[" * 100_000]
)
def test_what_is_not_a_trace_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a trace"):
        Trace.from_json(text)
