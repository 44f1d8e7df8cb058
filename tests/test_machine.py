"""Any schedule: replies, cells, parallel outcomes in any order, failures, crashes, re-opened logs.

After every rule: folding the log gives the live state, what is owed is what is outstanding, each
frame moved as its row says, budgets never rise, and the invariants of `rlm_fsm.state` hold.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from machine import BOOM, TEXT, code

from effects.log.sqlite import SqliteLog
from rlm_fsm.bills import NO_BILLS, expected
from rlm_fsm.effect import (
    AskApproval,
    CallModel,
    CallTool,
    CheckAnswer,
    Effect,
    ReadVariable,
    ResumeCode,
    RunCode,
)
from rlm_fsm.event import (
    AnswerChecked,
    ApprovalGiven,
    ApprovalPostponed,
    Cancelled,
    CodeExecuted,
    CodePaused,
    DeadlinePassed,
    Event,
    ModelFailed,
    ModelReplied,
    ReplFailed,
    RunResumed,
    RunStarted,
    ToolFailed,
    ToolReturned,
    VariableRead,
)
from rlm_fsm.fold import advance, fold, pending, state_at
from rlm_fsm.history import HEAD
from rlm_fsm.ids import CallId, RunId, first_of
from rlm_fsm.needs import takes_a_place, untold_nusd
from rlm_fsm.options import Options
from rlm_fsm.policy import Policy, Spent
from rlm_fsm.price import NANO_USD, AdapterPrice, Price
from rlm_fsm.profiles import PAPER, PROFILES
from rlm_fsm.reducer import TRANSITIONS, step
from rlm_fsm.reply import visible
from rlm_fsm.state import INITIAL, Phase, RunState
from rlm_fsm.toolspec import ToolSpec
from rlm_fsm.values import GivenFinal, HostCall, Outcome, Problem, Usage, Variable

RUN = RunId("run")

REPLIES = st.one_of(
    st.just(code("x = 1")),
    st.just(code("a = 1") + "\nand\n" + code("b = 2")),
    st.just(code("a = 1") + "\nFINAL: after"),
    st.sampled_from(["FINAL: 42", "FINAL_VAR: x", "", "Let me think.", "```python\nx = ("]),
    st.text(max_size=40),
)
SUMMARIES = st.sampled_from(["Looked.", "The text was looked at.", "Found. " * 150, ""])
FINALS = st.sampled_from(
    [
        *(None, None, None, None),
        GivenFinal(form="SUBMIT", text="given", kind="dict", data='{"a":1}'),
        GivenFinal(form="answer", text=" "),
    ]
)
VARIABLES = st.sampled_from([(), (Variable(name="x", summary="int 1", is_new=True),)])
PROMPTS = st.lists(st.sampled_from(["a", "b", "c", "long " * 300]), max_size=6)
SCHEMAS = st.sampled_from([None, None, None, '{"type":"integer"}'])
PRICE = AdapterPrice(
    adapter="root",
    model="m",
    price=Price(prompt_usd_per_mtok=1, completion_usd_per_mtok=40),
    source="given",
)
TOOLS = (
    ToolSpec(name="look", idempotent=True),
    ToolSpec(name="pay", idempotent=False),
    ToolSpec(name="send", needs_approval=True),
)
CALLED = st.lists(st.sampled_from(["look", "pay", "send", "send", "gone"]), max_size=4)


def possible_options(**values: Any) -> Options:
    """Options that go together: compaction has a limit and a history."""
    if not values["max_history_tokens"] or not values["conversation_history"]:
        values["compaction"] = 0.0
    return Options(**values)


OPTIONS = st.builds(
    possible_options,
    policy=st.builds(
        Policy,
        max_steps=st.integers(0, 6),
        max_subcalls=st.integers(0, 12),
        max_total_tokens=st.sampled_from([None, 3_000, 20_000]),
        max_subcall_tokens=st.sampled_from([None, 600, 5_000]),
        max_cost_usd=st.sampled_from([None, 0.05]),
        max_seconds=st.sampled_from([None, 50.0]),
        on_limit=st.sampled_from(["finalize", "raise"]),
    ),
    max_tokens=st.just(100),
    subcall_max_tokens=st.just(50),
    system_prompt=st.just("system"),
    subcall_system_prompt=st.sampled_from(["sub", "sub " * 200]),
    recursive_subcall_system_prompt=st.just("recursive"),
    conversation_history=st.booleans(),
    max_history_tokens=st.sampled_from([0, 60, 400]),
    compaction=st.sampled_from([0.0, 0.3, 0.8]),
    compaction_limit=st.integers(1, 3),
    compaction_max_tokens=st.just(40),
    recursive_subcalls=st.booleans(),
    max_recursion_depth=st.integers(0, 3),
    recursive_subcall_max_steps=st.integers(1, 3),
    max_concurrent_subcalls=st.integers(1, 3),
    require_repl_before_final=st.booleans(),
    require_subcall_before_final=st.booleans(),
    min_steps=st.integers(0, 2),
    invalid_response_limit=st.sampled_from([None, 2]),
    repl_error_limit=st.sampled_from([None, 2]),
    loop_limit=st.sampled_from([None, 2, 5]),
    fallback_code=st.sampled_from([None, "SUBMIT(1)"]),
    profile=st.sampled_from([*PROFILES.values(), replace(PAPER, blocks="last", finals=("text",))]),
    auto_finalize_var=st.sampled_from([None, "answer"]),
    auto_finalize_min_length=st.sampled_from([0, 4]),
    auto_finalize_reject_patterns=st.sampled_from([(), ("[a-f]",)]),
    auto_finalize_reject_limit=st.sampled_from([None, 1, 2]),
    subcall_guard_steps=st.sampled_from([None, 1, 2]),
    fallback_guard_steps=st.sampled_from([None, 1, 2]),
    tell_budget=st.booleans(),
    prices=st.sampled_from([(), (PRICE,), (PRICE, replace(PRICE, adapter="subcall"))]),
    answer_schema=st.sampled_from([None, None, '{"type":"integer"}']),
    output_retries=st.integers(0, 2),
    tools=st.sampled_from([(), TOOLS]),
    max_concurrent_tools=st.integers(1, 3),
)


LONG = st.builds(
    replace,
    OPTIONS.map(lambda options: replace(options, conversation_history=True)),
    policy=st.builds(
        Policy,
        max_steps=st.integers(6, 30),
        max_subcalls=st.just(12),
        max_total_tokens=st.sampled_from([None, None, 6_000]),
        max_cost_usd=st.sampled_from([None, None, 0.05]),
    ),
    max_history_tokens=st.sampled_from([600, 1_200]),
    compaction=st.sampled_from([0.3, 0.8]),
    min_steps=st.just(0),
    loop_limit=st.none(),
    recursive_subcalls=st.booleans(),
    max_recursion_depth=st.just(1),
    recursive_subcall_max_steps=st.just(9),
    profile=st.sampled_from(list(PROFILES.values())),
)


class AnySchedule(RuleBasedStateMachine):
    """A world that answers what is outstanding, in whatever order and way hypothesis likes."""

    replies = REPLIES
    out = st.text(max_size=20)

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = str(Path(self.folder.name) / "log.sqlite")
        self.log = SqliteLog(self.path, durability="process")
        self.state: RunState = INITIAL
        self.events: list[Event] = []
        self.outstanding: list[Effect] = []
        self.lowered = False
        """Whether a limit was made smaller than what is spent already: that is legal."""
        self.spent_before = Spent()
        """What was spent when the limits were last changed."""
        self.worst_error = 0
        self.beyond_most = 0
        self.worst_error_usd = 0.0
        self.beyond_most_usd = 0.0
        self.told: dict[CallId, Outcome] = {}
        self.agreed: set[CallId] = set()
        self.clock_s = 0.0

    def teardown(self) -> None:
        self.log.close()
        self.folder.cleanup()

    # -- the world -------------------------------------------------------------------------------

    @initialize(options=OPTIONS)
    def start(self, options: Options) -> None:
        self.commit([RunStarted(query="What?", context=TEXT, options=options)])

    @precondition(lambda self: self.waiting_for(CallModel))
    @rule(data=st.data())
    def models_answer(self, data: st.DataObject) -> None:
        """Some of the calls in flight end, all in one commit."""
        calls = data.draw(st.permutations(self.waiting_for(CallModel)))
        some = calls[: data.draw(st.integers(1, len(calls)))]
        self.commit([self.outcome(call, data) for call in some])

    @precondition(lambda self: self.waiting_for(RunCode, ResumeCode))
    @rule(data=st.data())
    def a_cell_goes_on(self, data: st.DataObject) -> None:
        """A cell pauses, ends, raises, or its REPL is gone."""
        effect = data.draw(st.sampled_from(self.waiting_for(RunCode, ResumeCode)))
        self.clock_s += 1
        named = {"frame": effect.frame, "call_id": effect.call_id}
        match data.draw(st.sampled_from(["pause", "end", "end", "raise", "lost", "fail"])):
            case "pause":
                recursive = data.draw(st.sampled_from([None, True, False]))
                calls = tuple(
                    HostCall(
                        fn="llm_batch", prompt=p, recursive=recursive, schema=data.draw(SCHEMAS)
                    )
                    for p in data.draw(PROMPTS)
                )
                parallel = data.draw(st.booleans())
                event: Event = CodePaused(**named, calls=calls, parallel=parallel)
            case "end":
                watched = data.draw(st.sampled_from([{}, {"answer": "found"}]))
                out = data.draw(self.out)
                event = CodeExecuted(
                    **named,
                    stdout=out,
                    stdout_chars=len(out),
                    watched=watched,
                    final=data.draw(FINALS),
                    variables=data.draw(VARIABLES),
                )
            case "raise":
                final = data.draw(FINALS)
                event = CodeExecuted(**named, error=BOOM, clock_s=self.clock_s, final=final)
            case "lost":
                event = CodeExecuted(**named, error=BOOM, repl_lost=True)
            case _:
                event = ReplFailed(**named, message="no process")
        if isinstance(event, CodePaused):
            kind = data.draw(st.sampled_from(["", "budget", "clock"]))
            asked = (HostCall(fn=kind, prompt="", kind=kind),) if kind else ()
            now_s = 1.8e9 if kind == "clock" else None
            called = tuple(
                HostCall(fn=fn, prompt="{}", dedupe=False, kind="tool") for fn in data.draw(CALLED)
            )
            calls = (*event.calls, *asked, *called)
            event = replace(event, calls=calls, now_s=now_s)
        self.commit([event])

    @precondition(lambda self: self.waiting_for(CallTool))
    @rule(data=st.data())
    def tools_answer(self, data: st.DataObject) -> None:
        """Some of the tools in flight return or fail, all in one commit."""
        calls = data.draw(st.permutations(self.waiting_for(CallTool)))
        some = calls[: data.draw(st.integers(1, len(calls)))]
        self.commit([self.outcome_of_tool(call, data) for call in some])

    @precondition(lambda self: self.waiting_for(AskApproval))
    @rule(data=st.data())
    def people_answer(self, data: st.DataObject) -> None:
        """Some of those who are asked agree, refuse, or aren't there."""
        asked = data.draw(st.permutations(self.waiting_for(AskApproval)))
        some = asked[: data.draw(st.integers(1, len(asked)))]
        self.commit([self.verdict(ask, data) for ask in some])

    @precondition(lambda self: self.state.is_over and self.undecided())
    @rule(data=st.data())
    def somebody_answers_for_a_run_that_stands(self, data: st.DataObject) -> None:
        """From another process: it is recorded, and the run stands as it did."""
        call = self.state.approvals[data.draw(st.sampled_from(self.undecided()))].call
        before = self.state.status
        self.commit([self.answer_for(call, is_approved=data.draw(st.booleans()))])
        assert self.state.status == before

    @precondition(lambda self: self.waiting_for(CheckAnswer))
    @rule(data=st.data())
    def types_are_checked(self, data: st.DataObject) -> None:
        """Some of the answers and replies that are being checked fit, or don't, in one commit."""
        checks = data.draw(st.permutations(self.waiting_for(CheckAnswer)))
        some = checks[: data.draw(st.integers(1, len(checks)))]
        self.commit([self.judged(check, fits=data.draw(st.booleans())) for check in some])

    @precondition(lambda self: self.waiting_for(ReadVariable))
    @rule(data=st.data())
    def a_variable_is_read(self, data: st.DataObject) -> None:
        effect = data.draw(st.sampled_from(self.waiting_for(ReadVariable)))
        text = data.draw(st.sampled_from([None, "", "the answer"]))
        self.commit(
            [VariableRead(frame=effect.frame, call_id=effect.call_id, name=effect.name, text=text)]
        )

    @precondition(lambda self: self.state.seq > 6 and not self.state.is_over)
    @rule(now=st.integers(0, 9), data=st.data())
    def somebody_cancels(self, now: int, data: st.DataObject) -> None:
        if now == 0:
            self.commit([Cancelled(reason="enough", not_made=self.some_calls(data))])

    @precondition(
        lambda self: not self.state.is_over and self.state.options.policy.max_seconds is not None
    )
    @rule(now=st.integers(0, 9), data=st.data())
    def the_deadline_passes(self, now: int, data: st.DataObject) -> None:
        """Whatever is in flight, the run ends, and says by which limit."""
        if now == 0:
            self.clock_s = max(self.clock_s, self.state.options.policy.max_seconds)
            not_made = self.some_calls(data)
            self.commit([DeadlinePassed(clock_s=self.clock_s, not_made=not_made)])
            assert self.state.limit == "max_seconds"
            assert self.state.status in ("partial", "failed")

    @precondition(lambda self: self.state.seq > 0)
    @rule()
    def the_process_dies(self) -> None:
        """What isn't in the log is gone: state and effects come back from it alone."""
        self.log.close()
        self.log = SqliteLog(self.path, durability="process")
        self.events = [logged.event for logged in self.log.load(RUN)]
        self.state = fold(self.events)
        self.outstanding = list(pending(self.state))

    @precondition(lambda self: self.state.seq > 0 and self.state.status != "finished")
    @rule(
        on_uncertain=st.sampled_from(["retry", "fail"]),
        options=st.one_of(st.none(), st.none(), OPTIONS),
    )
    def somebody_resumes(self, on_uncertain: str, options: Options | None) -> None:
        """After a crash, a failure, a limit or a cancellation, perhaps with other options."""
        if options is not None:
            self.lowered, self.spent_before = True, self.state.spent
        uncertain = len(self.state.under_way)
        before = self.state.uncertain
        self.outstanding = []
        self.commit([RunResumed(on_uncertain=on_uncertain, options=options)])
        assert self.state.uncertain == before + uncertain

    # -- what always holds -----------------------------------------------------------------------

    @invariant()
    def folding_the_log_gives_the_live_state(self) -> None:
        assert fold(self.events) == self.state
        assert state_at(self.events, self.state.seq) == self.state

    @invariant()
    def what_is_owed_is_what_is_outstanding(self) -> None:
        if not self.state.is_over:
            assert sorted(map(repr, self.outstanding)) == sorted(map(repr, pending(self.state)))
            assert self.state.seq == 0 or self.outstanding, "a live run waits for something"
        else:
            assert pending(self.state) == ()

    @invariant()
    def the_window_is_kept(self) -> None:
        taking = [call for call in self.state.calls.values() if takes_a_place(call)]
        assert self.state.in_flight == len(taking)
        assert len(taking) <= self.state.options.max_concurrent_subcalls
        assert not set(self.state.calls) & {call.call_id for call in self.state.queue}
        if not self.state.is_over:
            open_sub_runs = len(self.state.frames) - 1
            assert self.state.in_flight or not self.state.queue or open_sub_runs, (
                "what waits, waits for a bill, or for a sub-run to end"
            )

    @invariant()
    def calls_of_tools_are_in_one_place(self) -> None:
        state = self.state
        queued = [call.call_id for call in state.tool_queue]
        named = [*state.tools, *queued, *state.approvals]
        assert len(named) == len(set(named))
        if not self.lowered:
            assert len(state.tools) <= state.options.max_concurrent_tools
        for name in named:
            pause = state.frames[name.rpartition(".")[0]].pause
            assert pause is not None
            assert name in pause.asked
            assert name not in pause.answers

    @invariant()
    def a_run_waits_only_for_people(self) -> None:
        state = self.state
        if state.status == "waiting":
            assert state.approvals
            busy = [*state.calls, *state.queue, *state.tools, *state.tool_queue]
            assert busy == []
            assert all(frame.phase is Phase.WAITING for frame in state.frames.values())

    @invariant()
    def reservations_are_those_of_the_calls_in_flight(self) -> None:
        spent, calls = self.state.spent, self.state.calls.values()
        assert set(spent.reservations) == set(self.state.calls)
        kept = [spent.reservations[call.call_id] for call in calls]
        assert spent.reserved_tokens == sum(need.tokens for need in kept)
        assert spent.reserved_nusd == sum(need.nusd for need in kept)
        assert spent.reserved_tokens >= spent.reserved_subcall_tokens >= 0

    @invariant()
    def limits_are_overshot_by_no_more_than_one_estimates_error(self) -> None:
        """And by what bills exceed even the most that their calls were thought to take."""
        policy, spent, gone = self.state.options.policy, self.state.spent, self.spent_before
        assert spent.steps <= max(policy.max_steps, gone.steps)
        assert spent.subcalls <= max(policy.max_subcalls, gone.subcalls)
        over = self.worst_error + self.beyond_most
        if policy.max_total_tokens is not None:
            allowed = max(policy.max_total_tokens, gone.usage.total_tokens)
            assert spent.usage.total_tokens <= allowed + over
        if policy.max_subcall_tokens is not None:
            allowed = max(policy.max_subcall_tokens, gone.subcall_tokens)
            assert spent.subcall_tokens <= allowed + over
        if policy.max_cost_usd is not None:
            over_usd = self.worst_error_usd + self.beyond_most_usd
            allowed_usd = max(policy.max_cost_usd, gone.charged_usd)
            assert spent.charged_usd <= allowed_usd + over_usd + 1e-9

    @invariant()
    def hits_and_calls_are_told_apart(self) -> None:
        spent = self.state.spent
        ended = [e for e in self.events if isinstance(e, ModelReplied | ModelFailed)]
        hits = [e for e in ended if isinstance(e, ModelReplied) and e.cache_hit]
        assert (spent.cache_hits, spent.model_calls) == (len(hits), len(ended) - len(hits))

    @invariant()
    def frames_are_as_their_phase_says(self) -> None:
        for frame in self.state.frames.values():
            assert (frame.pause is not None) == (frame.phase is Phase.WAITING)
            assert frame.pause is None or frame.pause.missing > 0
            if frame.id != "0":
                parent = self.state.frames[frame.id.rpartition(".")[0]]
                assert parent.phase is Phase.WAITING
                assert frame.id not in parent.pause.answers

    @invariant()
    def a_summary_is_asked_for_once_and_no_more_often_than_was_allowed(self) -> None:
        queued = [call for call in self.state.queue if call.purpose == "compaction"]
        asked = [call for call in self.state.calls.values() if call.purpose == "compaction"]
        compacting = {
            frame.id for frame in self.state.frames.values() if frame.phase is Phase.COMPACTING
        }
        assert sorted(call.frame for call in (*queued, *asked)) == sorted(compacting)
        for frame in self.state.frames.values():
            assert (frame.compacting != "") == (frame.id in compacting)
            if not self.lowered:
                assert frame.compactions <= self.state.options.compaction_limit

    @invariant()
    def what_is_sent_keeps_the_limit_where_dropping_can(self) -> None:
        """Head, newest reply and its result are sent in any case."""
        limit = self.state.options.max_history_tokens
        if not limit or not self.state.options.conversation_history or self.lowered:
            return
        for call in (*self.state.calls.values(), *self.state.queue):
            if call.purpose == "subcall":
                continue
            messages = self.state.frames[call.frame].messages
            chars = sum(len(message.content) for message in (*messages[:HEAD], *messages[-2:]))
            assert call.prompt.chars // 4 <= max(limit, chars // 4) + 2, "halves of tokens apart"

    # -- helpers ---------------------------------------------------------------------------------

    def commit(self, arrived: list[Event]) -> None:
        before = self.state
        self.state, events, effects = advance(before, arrived)
        self.log.append(RUN, before.seq, events)
        self.events += events
        self.check_rows(before, events)
        self.check_outcomes(before, effects)
        self.check_budget(before)
        answered = {self.answers(event) for event in arrived}
        self.outstanding = [e for e in self.outstanding if self.name(e) not in answered]
        self.outstanding += effects
        if self.state.is_over:
            assert effects == (), "terminal states emit nothing"

    def check_rows(self, state: RunState, events: tuple[Event, ...]) -> None:
        for event in events:
            row = TRANSITIONS[state.frames[event.frame].phase, type(event)]
            state, _ = step(state, event)
            frame = state.frames.get(event.frame)
            if frame is None:
                assert {Phase.DONE, Phase.FAILED} & set(row.to)
            else:
                assert frame.phase in row.to, (row, frame.phase)

    def check_outcomes(self, before: RunState, effects: tuple[Effect, ...]) -> None:
        """A cell is resumed with what its plain subcalls were answered, in call order."""
        for effect in effects:
            if not isinstance(effect, ResumeCode) or effect.frame not in before.frames:
                continue
            pause = before.frames[effect.frame].pause
            for asked, outcome in zip(pause.asked if pause else (), effect.outcomes, strict=False):
                assert outcome == self.told.get(asked, outcome)

    def check_budget(self, before: RunState) -> None:
        old, new = before.spent, self.state.spent
        assert new.usage.total_tokens >= old.usage.total_tokens
        assert new.model_calls >= old.model_calls
        assert new.cache_hits >= old.cache_hits
        assert new.subcalls >= 0  # hits and what a limit refused are given back
        assert (new.cost_usd or 0) >= (old.cost_usd or 0)
        assert new.seconds >= old.seconds

    def outcome(self, call: CallModel, data: st.DataObject) -> Event:
        self.clock_s += 1
        named = {"frame": call.frame, "call_id": call.call_id, "clock_s": self.clock_s}
        if data.draw(st.integers(0, 9)) == 0:
            if call.purpose == "subcall":
                self.told[first_of(call.call_id)] = Outcome("error", "server: down")
            return ModelFailed(**named, error="server", message="down")
        text = data.draw(SUMMARIES if call.purpose == "compaction" else self.replies)
        if call.purpose == "subcall":
            self.told[first_of(call.call_id)] = Outcome("text", visible(text))
            if data.draw(st.integers(0, 3)) == 0:
                return ModelReplied(**named, text=text, cache_hit=True, cache_key="k" * 64)
        billed = data.draw(st.integers(0, 400) | st.integers(0, 4000))
        cost = data.draw(st.sampled_from([None, 0.001, 0.01]))
        prompt = data.draw(st.integers(0, billed))
        usage = Usage(prompt, billed - prompt, billed)
        untold_usd = untold_nusd(self.state, call, usage) / NANO_USD
        self.note_errors(call, billed, untold_usd if cost is None else cost)
        return ModelReplied(**named, text=text, usage=usage, cost_usd=cost)

    def note_errors(self, call: CallModel, billed: int, cost_usd: float) -> None:
        """Note by how much a bill exceeds what its call was expected to take at the least, and the
        most that it was thought to take."""
        options, most = self.state.options, self.state.spent.reservations[call.call_id]
        told = options.subcall_system_prompt if call.purpose == "subcall" else ""
        least = expected(NO_BILLS, call.prompt.chars + len(told), call.max_tokens)
        self.worst_error = max(self.worst_error, billed - least.tokens)
        self.beyond_most += max(0, billed - most.tokens)
        priced = options.price_of(call.adapter)
        least_usd = least.nusd(priced.price) / NANO_USD if priced else 0.0
        self.worst_error_usd = max(self.worst_error_usd, cost_usd - least_usd)
        self.beyond_most_usd += max(0.0, cost_usd - most.nusd / NANO_USD)

    def outcome_of_tool(self, call: CallTool, data: st.DataObject) -> Event:
        assert call.tool != "send" or call.call_id in self.agreed, "made without an approval"
        self.clock_s += 1
        named = {"frame": call.frame, "call_id": call.call_id, "clock_s": self.clock_s}
        if data.draw(st.booleans()):
            self.told[call.call_id] = Outcome("text", "1")
            return ToolReturned(**named, value="1")
        self.told[call.call_id] = Outcome("error", "KeyError")
        return ToolFailed(**named, error="raised", message="KeyError")

    def verdict(self, ask: AskApproval, data: st.DataObject) -> Event:
        said = data.draw(st.sampled_from(["yes", "no", "nothing"]))
        if said == "nothing":
            return ApprovalPostponed(frame=ask.frame, call_id=ask.call_id)
        return self.answer_for(ask, is_approved=said == "yes")

    def answer_for(self, call: CallTool | AskApproval, *, is_approved: bool) -> ApprovalGiven:
        if is_approved:
            self.agreed.add(call.call_id)
        else:
            self.told[call.call_id] = Outcome("denied", "no")
        return ApprovalGiven(
            frame=call.frame, call_id=call.call_id, is_approved=is_approved, reason="no"
        )

    def judged(self, check: CheckAnswer, *, fits: bool) -> AnswerChecked:
        named = {"frame": check.frame, "call_id": check.call_id}
        self.told.pop(first_of(check.call_id), None)
        if fits:
            self.told[first_of(check.call_id)] = Outcome("text", "1")
            return AnswerChecked(**named, value="1")
        return AnswerChecked(**named, problems=(Problem(path="", message="not a number"),))

    def some_calls(self, data: st.DataObject) -> tuple[CallId, ...]:
        """Calls that were announced; whoever stops the run may not have made them."""
        announced = [*sorted(self.state.calls), *sorted(self.state.tools)]
        return tuple(name for name in announced if data.draw(st.booleans()))

    def undecided(self) -> list[CallId]:
        found = self.state.approvals
        return sorted(name for name in found if found[name].given is None)

    def waiting_for(self, *kinds: type) -> list:
        """Outstanding effects of these kinds; none once the run is over."""
        if self.state.is_over:
            return []
        return [effect for effect in self.outstanding if isinstance(effect, kinds)]

    @staticmethod
    def name(effect: Effect) -> CallId:
        return effect.call_id

    @staticmethod
    def answers(event: Event) -> CallId | None:
        return getattr(event, "call_id", None)


class LongConversation(AnySchedule):
    """The same with long output and little room, so that conversations are summed up."""

    replies = st.one_of(
        st.integers(0, 99).map(lambda n: code(f"print({n})" + " # and so on" * 20)),
        st.integers(0, 99).map(lambda n: code(f"print({n})")),
        REPLIES,
    )
    out = st.integers(1, 9).map(lambda n: "found " * 20 * n)

    @initialize(options=LONG, turns=st.integers(0, 9), chars=st.integers(100, 1_500))
    def start(self, options: Options, turns: int, chars: int) -> None:
        self.commit([RunStarted(query="What?", context=TEXT, options=options)])
        if self.waiting_for(CallModel):
            self.take_turns(turns, chars)

    @precondition(lambda self: any(call.purpose == "turn" for call in self.waiting_for(CallModel)))
    @rule(turns=st.integers(2, 6), chars=st.integers(100, 1_500))
    def turns_are_taken(self, turns: int, chars: int) -> None:
        self.take_turns(turns, chars)

    def take_turns(self, turns: int, chars: int) -> None:
        """Turns of one frame, each with a cell that prints so much, until it is to be summed up."""
        asked = (call for call in self.waiting_for(CallModel) if call.purpose == "turn")
        frame = next(asked).frame
        for _ in range(turns):
            mine = [effect for effect in self.waiting_for(CallModel) if effect.frame == frame]
            if [call.purpose for call in mine] != ["turn"]:
                return
            self.clock_s += 1
            named = {"frame": frame, "call_id": mine[0].call_id, "clock_s": self.clock_s}
            self.commit([ModelReplied(**named, text=code("print('found')"), cost_usd=0.0)])
            cells = [cell for cell in self.waiting_for(RunCode) if cell.frame == frame]
            if not cells:
                return
            named = {"frame": frame, "call_id": cells[0].call_id}
            self.commit([CodeExecuted(**named, stdout="x" * chars, stdout_chars=chars)])


AnySchedule.TestCase.settings = settings(
    parent=settings(),
    max_examples=60,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],
)
LongConversation.TestCase.settings = AnySchedule.TestCase.settings
test_any_schedule = AnySchedule.TestCase
test_any_schedule_of_a_long_conversation = LongConversation.TestCase
