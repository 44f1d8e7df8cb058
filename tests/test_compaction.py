"""Compaction: its rows, when it is due, what is sent, whole runs, and runs that die in it."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine import Machine, code, kinds, names
from test_history import shared, size
from test_resume import Failing, Power

from effects.view.stand import state_document, state_lines
from effects.windows import window
from rlm_fsm import (
    RLM,
    FakeAdapter,
    ModelResponse,
    OpenAICompatAdapter,
    Policy,
    RunResult,
    SqliteLog,
    Usage,
    UsageError,
    fold,
    fork,
    replay,
    resume,
    run,
    runs,
)
from rlm_fsm.bills import at_most
from rlm_fsm.compaction import messages as asked_with
from rlm_fsm.event import (
    DeadlinePassed,
    EffectStarted,
    Event,
    HistoryCompacted,
    ModelReplied,
    RunResumed,
)
from rlm_fsm.history import HEAD, prompt, sent
from rlm_fsm.options import Options
from rlm_fsm.state import Phase
from rlm_fsm.values import estimate_tokens

BACKENDS = pytest.mark.parametrize("backend", ["python", "monty"])
ROOM = {"max_history_tokens": 2_000, "compaction": 0.8, "loop_limit": None}
PRINTED = "x" * 1_200
"""About 300 tokens: some five turns to the first compaction."""


def begun(**options: Any) -> Machine:
    machine = Machine()
    machine.start(**{"system_prompt": "Look.", **ROOM, **options})
    return machine


def turn(machine: Machine, number: int, frame: str = "0") -> None:
    machine.reply(code(f"print({number})"))
    machine.ran(PRINTED, frame=frame)


def compacting(**options: Any) -> Machine:
    """A run whose conversation is about to be summed up."""
    machine = begun(**options)
    for number in range(20):
        turn(machine, number)
        if machine.frame().phase is Phase.COMPACTING:
            return machine
    raise AssertionError("nothing was compacted")


def compactions(machine: Machine) -> list[HistoryCompacted]:
    return [event for event in machine.log if isinstance(event, HistoryCompacted)]


# -- rows -----------------------------------------------------------------------------------------


def test_a_summary_is_asked_for_before_the_turn_that_would_fill_the_share():
    machine = compacting()
    assert names(machine.commits[-1]) == ["CodeExecuted", "EffectStarted"]
    assert kinds(machine.effects) == ["CallModel 0.s1"]
    call = machine.call()
    assert (call.purpose, call.adapter, call.max_tokens) == ("compaction", "root", 800)
    frame = machine.frame()
    assert estimate_tokens(frame.chars) <= 0.8 * 2_000
    assert estimate_tokens(frame.chars + len(frame.news)) > 0.8 * 2_000
    assert "At most 480 words" in asked_with(frame)[-1].content


def test_the_summary_stands_for_the_middle_and_the_newest_exchanges_stay():
    machine = compacting()
    before = machine.frame()
    effects = machine.reply("  Five numbers were printed.\n")
    assert names(machine.commits[-1]) == ["ModelReplied", "HistoryCompacted", "EffectStarted"]
    assert kinds(effects) == [f"CallModel 0.m{before.turns + 1}"]
    frame, (event,) = machine.frame(), compactions(machine)
    assert frame.phase is Phase.ASKING
    assert event.messages == frame.skipped > 0
    assert event.tokens_after < 0.5 * event.tokens_before
    head, summary, note, *rest = list(sent(frame))[1:]
    assert head == frame.messages[1]
    assert (summary.role, note.role) == ("assistant", "user")
    assert summary.content.endswith("so far:\nFive numbers were printed.")
    assert f"({event.messages} messages were left out" in note.content
    assert rest == list(frame.messages[HEAD + frame.skipped :])
    assert [message.role for message in rest] == ["assistant", "user"] * (len(rest) // 2)
    assert rest[-2].content == code(f"print({before.turns - 1})")
    assert frame.messages[: len(before.messages)] == before.messages, "nothing is lost"
    assert machine.state.compactions == 1


def test_a_summary_takes_up_no_turn_and_is_paid_for_like_any_call():
    machine = compacting()
    before = machine.state
    assert (
        before.spent.reserved_tokens
        == at_most(before.spent.bills["root"], machine.call().prompt.chars, 800).tokens
    )
    machine.reply("Summed up.", tokens=50, cost_usd=0.25)
    after = machine.state
    assert after.spent.steps == before.spent.steps + 1, "that of the turn"
    assert after.spent.model_calls == before.spent.model_calls + 1
    assert after.spent.usage.total_tokens == before.spent.usage.total_tokens + 50
    assert after.spent.cost_usd == 0.25
    assert after.spent.subcalls == 0


@pytest.mark.parametrize("how", ["fails", "empty", "thinks"])
def test_without_a_summary_the_turn_is_taken_as_it_would_have_been(how: str):
    machine = compacting()
    before = machine.frame()
    if how == "fails":
        machine.fail()
    else:
        machine.reply({"empty": " \n", "thinks": "<think>hm</think>"}[how])
    assert names(machine.commits[-1])[1:] == ["HistoryCompacted", "EffectStarted"]
    (event,) = compactions(machine)
    assert event.failure == {"fails": "server: down"}.get(how, "the reply was empty")
    frame = machine.frame()
    assert (frame.summary, frame.skipped, frame.turns) == ((), 0, before.turns + 1)
    assert machine.state.compactions == 0


def test_refusals_fill_a_conversation_too():
    machine = begun()
    for _ in range(20):
        machine.reply("Let me think about it. " * 50)
        if machine.frame().phase is Phase.COMPACTING:
            break
    assert names(machine.commits[-1]) == ["ModelReplied", "GuardTripped", "EffectStarted"]
    assert machine.call().purpose == "compaction"
    machine.reply("Thought about it.")
    assert machine.frame().summary


@pytest.mark.parametrize("on_limit", ["finalize", "raise"])
def test_a_run_that_goes_on_after_its_end_is_summed_up_first_where_that_is_due(on_limit: str):
    machine = begun(policy=Policy(max_steps=4, on_limit=on_limit))
    for number in range(4):
        turn(machine, number)
    if on_limit == "finalize":
        machine.reply("FINAL: so far")
    assert machine.state.status == {"finalize": "partial", "raise": "failed"}[on_limit]
    options = Options(**{**ROOM, "compaction": 0.5, "system_prompt": "Look."})
    assert kinds(machine.send(RunResumed(options=options))) == ["CallModel 0.s1"]
    machine.reply("Summed up.")
    assert machine.call().purpose == "turn"
    assert machine.frame().messages[-1].role == "user"


def test_after_a_failure_none_is_asked_for_until_trimming_has_made_room():
    machine = compacting()
    machine.fail()
    while not machine.frame().skipped:
        assert machine.frame().no_compaction == "until_trimmed"
        turn(machine, 0)
        assert machine.frame().phase is Phase.ASKING
    assert machine.frame().no_compaction == ""
    for _ in range(8):
        if machine.frame().phase is Phase.COMPACTING:
            break
        turn(machine, 0)
    assert machine.call().call_id == "0.s2"


def test_a_summary_that_saves_too_little_is_not_used_and_was_the_last():
    machine = compacting()
    machine.reply("long " * 1_200)
    (event,) = compactions(machine)
    assert event.failure.startswith("it saves too little: ")
    for number in range(20):
        turn(machine, number)
    assert machine.frame().summary == ()
    assert machine.frame().skipped > 0, "trimming keeps the limit"
    assert len(compactions(machine)) == 1


def test_a_frame_asks_for_so_many_summaries_at_most():
    machine = begun(compaction_limit=2)
    for number in range(38):
        turn(machine, number)
        if machine.frame().phase is Phase.COMPACTING:
            machine.reply("Summed up.")
    assert [event.call_id for event in compactions(machine)] == ["0.s1", "0.s2"]
    assert machine.frame().skipped > compactions(machine)[-1].messages, "then trimming goes on"


def test_the_next_summary_takes_the_place_of_the_one_before():
    machine = begun()
    for number in range(16):
        turn(machine, number)
        if machine.frame().phase is Phase.COMPACTING:
            machine.reply(f"Up to {number}.")
    assert len(compactions(machine)) >= 2
    said = [message.content for message in sent(machine.frame())]
    assert sum("Summary of the work so far" in text for text in said) == 1
    assert machine.state.compactions == len(compactions(machine))


def test_one_compaction_is_never_followed_by_another_without_a_turn_between():
    machine = compacting(compaction=0.1)
    machine.reply("Summed up. " * 20)
    assert machine.call().purpose == "turn"
    gaps = [kind for kind in map(type, machine.log) if kind is HistoryCompacted]
    assert len(gaps) == 1


def test_a_summary_that_the_budget_has_no_room_for_is_not_asked_for():
    machine = compacting()
    # the turn would fit, and the last call after it; with the summary they don't
    poor = begun(policy=Policy(max_total_tokens=6_500))
    for number in range(machine.frame().turns - 1):
        turn(poor, number)
    poor.reply(code("print()"), tokens=0)
    poor.ran(PRINTED)
    (event,) = compactions(poor)
    assert event.failure.startswith("the limit max_total_tokens: ")
    assert poor.call().purpose == "turn"
    assert poor.frame().compactions == 1


def test_no_summary_is_asked_for_where_the_turn_itself_is_forbidden():
    machine = begun(policy=Policy(max_total_tokens=2_600))
    for number in range(20):
        if machine.state.is_over:
            break
        machine.reply(code(f"print({number})"), tokens=100)
        if machine.frame().phase is Phase.RUNNING:
            machine.ran(PRINTED)
    assert all(event.failure for event in compactions(machine))
    assert machine.state.limit == "max_total_tokens"


def test_a_result_that_alone_fills_the_share_is_not_summed_up():
    """There is nothing in the middle."""
    machine = begun()
    machine.reply(code("print()"))
    machine.ran("y" * 7_000)
    assert machine.frame().phase is Phase.ASKING
    assert compactions(machine) == []


def test_a_run_is_cancelled_and_stopped_by_its_deadline_while_it_is_compacted():
    machine = compacting()
    machine.cancel()
    assert machine.state.status == "cancelled"
    machine = compacting(policy=Policy(max_seconds=9))
    machine.send(DeadlinePassed(clock_s=9))
    assert (machine.state.status, machine.state.limit) == ("partial", "max_seconds")
    (again,) = machine.send(RunResumed(options=Options(system_prompt="Look.", **ROOM)))
    assert again.call_id == "0.s1"


def test_a_call_that_was_in_flight_is_made_again_or_given_up():
    machine = compacting()
    assert kinds(machine.send(RunResumed())) == ["CallModel 0.s1"]
    assert machine.state.uncertain == 1
    machine.send(RunResumed(on_uncertain="fail"))
    assert names(machine.commits[-1])[1:] == ["ModelFailed", "HistoryCompacted", "EffectStarted"]
    assert machine.call().purpose == "turn"


def test_the_prompt_of_a_compaction_is_named_by_what_is_sent_whatever_the_options_become():
    machine = compacting()
    call, told = machine.call(), asked_with(machine.frame())
    assert call.prompt.chars == sum(len(message.content) for message in told)
    machine.send(RunResumed(options=Options(conversation_history=False)))
    assert asked_with(machine.frame()) == told


def test_a_sub_run_is_compacted_too_and_its_summary_waits_for_a_place():
    machine = begun(
        recursive_subcalls=True, recursive_subcall_max_steps=12, max_concurrent_subcalls=1
    )
    machine.reply(code("llm_batch"))
    machine.pause("a", "b")
    for number in range(12):
        machine.reply(code(f"print({number})"), machine.call().call_id)
        frame = machine.call().frame if machine.state.calls else "0.1"
        # while 0.1 computes, its place goes to 0.2, whose cell never ends here
        if frame == "0.2":
            machine.reply(code("wait()"), "0.2.m1")
        machine.ran(PRINTED, frame="0.1")
        if machine.frame("0.1").phase is Phase.COMPACTING:
            break
    call = machine.call()
    assert (call.call_id, call.purpose, call.adapter) == ("0.1.s1", "compaction", "subcall")
    assert machine.state.in_flight == 1
    machine.reply("Summed up.", "0.1.s1", tokens=7)
    assert machine.state.spent.subcall_tokens >= 7
    assert machine.frame("0.1").summary
    assert machine.frame("0").summary == ()
    assert machine.call().call_id.startswith("0.1.m")


def test_a_state_tells_of_what_was_summed_up():
    machine = compacting()
    assert "COMPACTING" in "\n".join(state_lines("run", machine.state))
    assert state_document("run", machine.state)["frames"][0]["summary"] is None
    machine.reply("Summed up.")
    skipped = machine.frame().skipped
    lines = "\n".join(state_lines("run", machine.state))
    assert f"{skipped} messages summed up or dropped" in lines
    assert "1 compaction" in lines
    (told,) = state_document("run", machine.state)["frames"]
    assert told["skipped_messages"] == skipped
    assert told["summary"] == "Summary of the work so far:\nSummed up."


# -- what is sent ---------------------------------------------------------------------------------


def test_a_fold_of_the_log_gives_the_prompts_that_were_sent():
    machine = begun()
    for number in range(30):
        turn(machine, number)
        if machine.frame().phase is Phase.COMPACTING:
            machine.reply(f"Up to {number}.")
    assert fold(machine.log) == machine.state
    frame = machine.frame()
    assert machine.call().prompt == prompt(frame, machine.state.options)
    assert machine.call().prompt.chars == sum(len(message.content) for message in sent(frame))


@given(
    limit=st.integers(200, 3_000),
    share=st.sampled_from([0.2, 0.5, 0.8, 1.0]),
    turns=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3_000)), max_size=14),
    summary=st.integers(0, 3_000),
)
def test_no_request_is_larger_than_the_limit_where_dropping_can_keep_it(
    limit: int, share: float, turns: list[tuple[int, int]], summary: int
):
    machine = begun(max_history_tokens=limit, compaction=share)
    for replied, printed in turns:
        machine.reply(code("print()" + "#" * replied))
        machine.ran("x" * printed)
        while machine.frame().phase is Phase.COMPACTING:
            assert machine.call().prompt.chars // 4 <= limit
            machine.reply("s" * summary)
        everything = machine.frame().messages
        least = sum(len(message.content) for message in (*everything[:HEAD], *everything[-2:]))
        assert machine.call().prompt.chars // 4 <= max(limit, least // 4)


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"compaction": 1.5, "max_history_tokens": 100}, "give a share"),
        ({"compaction": -0.1, "max_history_tokens": 100}, "give a share"),
        ({"compaction": 0.8}, "share of max_history_tokens"),
        ({"compaction": 0.8, "max_history_tokens": 9, "conversation_history": False}, "newest"),
        ({"compaction_limit": 0}, "compaction_limit=0: give a whole number, 1 or more"),
        ({"compaction_max_tokens": 0}, "compaction_max_tokens=0"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, told: str):
    with pytest.raises(UsageError, match=told):
        Options(**options)


class Windowed(FakeAdapter):
    """A model that says how much it can be sent."""

    context_window = 16_000


def test_without_a_limit_of_its_own_the_models_window_is_the_room():
    rlm = RLM(Windowed(), compaction=True)
    assert rlm.options.compaction == 0.8
    assert rlm.options.max_history_tokens == 12_000 - 800
    assert RLM(Windowed(), compaction=True, max_history_tokens=99).options.max_history_tokens == 99
    assert RLM(Windowed()).options.max_history_tokens == 0


def test_the_list_of_prices_knows_windows_at_their_own_address():
    import genai_prices

    usage = genai_prices.Usage(input_tokens=1)
    url = "https://api.openai.com/v1"
    listed = genai_prices.calc_price(usage, "gpt-4o-mini", provider_api_url=url).model
    assert window(OpenAICompatAdapter("gpt-4o-mini", api_key="k")) == listed.context_window
    own = OpenAICompatAdapter("gpt-4o-mini", base_url="http://127.0.0.1:1/v1", api_key="")
    assert window(own) is None


def test_where_sub_runs_can_be_sent_less_theirs_is_the_room():
    large = Windowed()
    large.context_window = 64_000
    rlm = RLM(large, subcall_adapter=Windowed(), compaction=0.5)
    assert rlm.options.max_history_tokens == 12_000 - 800
    rlm = RLM(large, subcall_adapter=FakeAdapter(), compaction=0.5, max_tokens=1_000)
    assert rlm.options.max_history_tokens == 48_000 - 1_000


def test_a_window_that_nobody_knows_is_said_before_anything_is_started():
    with pytest.raises(UsageError, match="nobody knows this model's window: give max_history"):
        RLM(FakeAdapter(), compaction=0.5)
    with pytest.raises(UsageError, match="leaves no room"):
        RLM(Windowed(), compaction=0.5, max_tokens=12_000)
    with pytest.raises(UsageError, match="give True, or a share"):
        RLM(Windowed(), compaction="yes")


# -- whole runs -----------------------------------------------------------------------------------

TURNS = 12
LIMIT = 3_200
SUMS_UP = "The conversation is getting too long"


class Model:
    """Prints its way through so many turns, then tells what its session has. Without a memory."""

    def __init__(self, *, fails: bool = False) -> None:
        self.requests: list[list[dict[str, str]]] = []
        self.fails = fails

    async def acomplete(self, messages: Any, *, max_tokens: int, temperature: float) -> Any:
        self.requests.append([dict(message) for message in messages])
        last = messages[-1]["content"]
        if last.startswith(SUMS_UP):
            if self.fails:
                raise RuntimeError("no summary today")
            return ModelResponse(f"Read: {len(messages)} messages.", Usage(20, 5, 25))
        left = re.search(r"(\d+) turns are left", last)
        number = 40 - int(left[1]) if left else 0
        if number < TURNS:
            said = f"seen = {number}\nprint('{number:03}' * 400)"
        else:
            said = "SUBMIT(f\"{seen} {len(history)} {history[3]['content'][:14]!r}\")"
        return ModelResponse(code(said), Usage(20, 5, 25))

    @property
    def summaries(self) -> int:
        """Summaries that it was asked for."""
        return sum(request[-1]["content"].startswith(SUMS_UP) for request in self.requests)


ANSWER = r"11 27 'Output:\n000000'"
"""The newest number, the messages of the whole conversation, and the first output."""


def compacted_run(log: Any, model: Model, **options: Any) -> RunResult:
    return run(
        "q", "some text", adapter=model, log=log, **{**ROOM, "max_history_tokens": LIMIT, **options}
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


@BACKENDS
def test_a_run_that_is_compacted_answers_as_one_that_is_not(backend: str, path: Path):
    model = Model()
    result = compacted_run(path, model, repl_backend=backend)
    assert (result.status, result.output) == ("finished", ANSWER)
    assert compacted_run(path, Model(), compaction=0, repl_backend=backend).output == ANSWER
    assert result.usage.compactions == model.summaries == 2
    assert result.usage.model_calls == result.usage.steps + 2
    assert all(estimate_tokens(size(request)) <= LIMIT for request in model.requests)
    assert replay(result.run_id, log=path, run_code=True).usage.compactions == 2


@BACKENDS
def test_a_run_without_its_summaries_goes_on(backend: str, path: Path):
    model = Model(fails=True)
    result = compacted_run(path, model, repl_backend=backend)
    assert result.output == ANSWER
    assert result.usage.compactions == 0
    assert model.summaries >= 1
    (first, *_) = [step for step in result.trace if step.kind == "compaction"]
    assert first.error == "adapter: RuntimeError: no summary today"


class Deep:
    """A root that asks once, and a sub-run that prints for eight turns."""

    async def acomplete(self, messages: Any, *, max_tokens: int, temperature: float) -> Any:
        last, system = messages[-1]["content"], messages[0]["content"]
        left = re.search(r"(\d+) turns are left", last)
        if last.startswith(SUMS_UP):
            said = "Eight were to be printed."
        elif not system.startswith("You are a sub-LLM that"):
            said = code("SUBMIT(llm_query('print eight'))")
        elif left is None or int(left[1]) > 4:
            said = code(f"print('{left and left[1]}' * 600)")
        else:
            said = code("SUBMIT(f'{len(history)} of them')")
        return ModelResponse(said, Usage(20, 5, 25))


@BACKENDS
def test_the_conversation_of_a_sub_run_is_summed_up_too(backend: str, path: Path):
    result = run(
        "q",
        "some text",
        adapter=Deep(),
        log=path,
        repl_backend=backend,
        recursive_subcalls=True,
        recursive_subcall_max_steps=12,
        **ROOM,
    )
    assert (result.status, result.output) == ("finished", "19 of them")
    steps = [step for step in result.trace if step.kind == "compaction"]
    assert result.usage.compactions == len(steps) >= 1
    assert {(step.frame, step.depth, step.output) for step in steps} == {
        ("0.1", 1, "Eight were to be printed.")
    }
    assert replay(result.run_id, log=path).output == "19 of them"


def test_the_trace_has_a_step_for_each_compaction(path: Path):
    result = compacted_run(path, Model())
    first, second = [step for step in result.trace if step.kind == "compaction"]
    assert re.match(r"\d+ messages summed up: [\d,]+ -> [\d,]+ tokens", first.prompt_summary or "")
    assert first.output is not None
    assert first.output.startswith("Read: ")
    assert second.usage == Usage(20, 5, 25)
    total = sum(step.usage.total_tokens for step in result.trace if step.usage)
    assert total == result.usage.total_tokens


def test_a_compaction_breaks_the_prefix_once_and_its_own_request_not_at_all(path: Path):
    model = Model()
    compacted_run(path, model)
    shares = [shared(before, after) for before, after in pairwise(model.requests)]
    summed = [request[-1]["content"].startswith(SUMS_UP) for request in model.requests]
    for is_summary, share in zip(summed, shares, strict=False):
        assert (share == 1.0) == (not is_summary), "only what follows a summary begins anew"
    assert sum(summed) == 2


def dying(path: Path, appends: int, *, after: bool) -> tuple[str, Model]:
    """A run whose process dies at its n-th append."""
    model, log = Model(), SqliteLog(path, durability="process")
    try:
        failing = Failing(log, appends, after=after)
        with pytest.raises(Power):
            compacted_run(failing, model, repl_backend="monty")
    finally:
        log.close()
    return runs(path)[0].run_id, model


def test_a_run_that_dies_in_a_compaction_pays_once_for_what_was_answered(tmp_path: Path):
    commits = commits_of(tmp_path / "whole.sqlite")
    asks = next(n for n, kinds in enumerate(commits, 1) if "s1" in kinds)
    for appends, after in ((asks, False), (asks, True), (asks + 1, False), (asks + 1, True)):
        path = tmp_path / f"{appends}{after}.sqlite"
        run_id, before = dying(path, appends, after=after)
        model = Model()
        result = resume(run_id, log=path, adapter=model)
        assert result.output == ANSWER
        assert result.usage.compactions == 2
        was_answered = (appends, after) == (asks + 1, True)
        assert model.summaries == (1 if was_answered else 2)
        assert before.summaries == (appends > asks)
        in_flight = (appends, after) != (asks, False)
        assert result.usage.uncertain_calls == in_flight, "the summary's, or that of the turn after"
        assert replay(run_id, log=path).output == ANSWER


def test_a_fork_in_the_middle_of_a_compaction_is_compacted_too(path: Path):
    result = compacted_run(path, Model(), repl_backend="monty")
    with SqliteLog(path) as log:
        at = next(item.seq for item in log.load(result.run_id) if is_summary(item.event))
    model = Model()
    branch = fork(result.run_id, at=at - 1, log=path, adapter=model)
    assert (branch.output, branch.usage.compactions) == (ANSWER, 2)
    assert model.summaries == 2


def commits_of(path: Path) -> list[str]:
    """What each commit of a whole run announces, in a word."""
    log = Watched(SqliteLog(path, durability="process"))
    try:
        compacted_run(log, Model(), repl_backend="monty")
    finally:
        log.log.close()
    return log.commits


class Watched:
    """A log that notes what is appended at once."""

    def __init__(self, log: SqliteLog) -> None:
        self.log = log
        self.commits: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)

    def append(self, run_id: Any, expected_seq: int, events: Any) -> int:
        calls = [e.call_id.rpartition(".")[2] for e in events if isinstance(e, EffectStarted)]
        self.commits.append(" ".join(calls))
        return self.log.append(run_id, expected_seq, events)


def is_summary(event: Event) -> bool:
    return isinstance(event, ModelReplied) and event.call_id.startswith("0.s")
