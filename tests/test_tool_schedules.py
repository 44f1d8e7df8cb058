"""Any schedule of a run that calls tools: results, failures, approvals in any order, crashes.

The world and what always holds are those of `test_machine`; here the run begins in a cell, most
cells call tools, and a run is resumed where that matters: after it stopped, or after a crash.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from machine import TEXT, code
from test_machine import TOOLS, AnySchedule

from rlm_fsm.effect import AskApproval, CallTool, ResumeCode, RunCode
from rlm_fsm.event import CodePaused, ModelReplied, RunResumed, RunStarted
from rlm_fsm.options import Options
from rlm_fsm.policy import Policy
from rlm_fsm.values import HostCall

CALLED = st.lists(st.sampled_from(["look", "pay", "send", "send", "a?", "b?", "gone"]), min_size=1)


class AnyToolSchedule(AnySchedule):
    """A run whose cells call tools."""

    @initialize(places=st.integers(1, 3), recursive=st.booleans(), data=st.data())
    def start(self, places: int, recursive: bool, data: st.DataObject) -> None:
        options = Options(
            policy=Policy(max_seconds=1_000.0, max_total_tokens=None),
            tools=TOOLS,
            max_concurrent_tools=places,
            max_concurrent_subcalls=places,
            subcall_system_prompt="sub",
            recursive_subcalls=recursive,
        )
        self.stopped = False
        self.commit([RunStarted(query="What?", context=TEXT, options=options)])
        (call,) = self.state.calls.values()
        self.commit([ModelReplied(frame="0", call_id=call.call_id, text=code("x = 1"))])
        self.a_cell_calls_tools(data)

    @precondition(lambda self: self.waiting_for(RunCode, ResumeCode))
    @rule(data=st.data())
    def a_cell_calls_tools(self, data: st.DataObject) -> None:
        effect = data.draw(st.sampled_from(self.waiting_for(RunCode, ResumeCode)))
        calls = tuple(
            HostCall(fn="llm_query", prompt=fn)
            if fn.endswith("?")
            else HostCall(fn=fn, prompt="{}", dedupe=False, kind="tool")
            for fn in data.draw(CALLED)
        )
        parallel = data.draw(st.booleans())
        named = {"frame": effect.frame, "call_id": effect.call_id}
        self.commit([CodePaused(**named, calls=calls, parallel=parallel)])

    @rule()
    def the_process_dies(self) -> None:
        self.stopped = True
        super().the_process_dies()

    @precondition(
        lambda self: self.state.status != "finished" and (self.state.is_over or self.stopped)
    )
    @rule(on_uncertain=st.sampled_from(["retry", "fail"]))
    def somebody_resumes(self, on_uncertain: str) -> None:
        again = {n for n, call in self.state.tools.items() if call.tool not in ("pay", "send")}
        if on_uncertain == "fail":
            again = {name for name in again if self.state.tools[name].tool == "look"}
        before = set(self.state.tools)
        again |= before & self.state.not_made
        uncertain = self.state.uncertain + len(self.state.under_way)
        self.stopped, self.outstanding = False, []
        self.commit([RunResumed(on_uncertain=on_uncertain)])
        assert self.state.uncertain == uncertain
        made = {effect.call_id for effect in self.waiting_for(CallTool)}
        assert made & before == again
        asked = {effect.call_id for effect in self.waiting_for(AskApproval)}
        assert asked == set(self.state.approvals)


AnyToolSchedule.TestCase.settings = settings(
    parent=settings(),
    max_examples=60,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow],
)
test_any_tool_schedule = AnyToolSchedule.TestCase
