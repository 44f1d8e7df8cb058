"""The format of events and effects stays what it is.

`python tests/test_codec_format.py --rewrite` writes the newest golden file, `data/events_v2.json`,
anew. That is right only while no version with this format has been published; afterwards a changed
format needs a new version of the kind, an upcaster, and a golden file of its own beside the old
ones, which are never written again.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlm_fsm.codec import BLOB_CHARS, decode, effect_hash, encode
from rlm_fsm.effect import (
    AskApproval,
    CallModel,
    CallTool,
    CheckAnswer,
    Effect,
    ReadVariable,
    Record,
    ResumeCode,
    RunCode,
)
from rlm_fsm.event import (
    EVENTS,
    AnswerChecked,
    ApprovalAsked,
    ApprovalGiven,
    ApprovalPostponed,
    Cancelled,
    CodeExecuted,
    CodePaused,
    DeadlinePassed,
    EffectStarted,
    Event,
    GuardTripped,
    HistoryCompacted,
    LimitReached,
    ModelFailed,
    ModelReplied,
    ReplFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    ToolFailed,
    ToolReturned,
    VariableRead,
)
from rlm_fsm.ids import ROOT, CallId, FrameId
from rlm_fsm.options import Options
from rlm_fsm.policy import Policy
from rlm_fsm.price import AdapterPrice, Price
from rlm_fsm.toolspec import ToolParameter, ToolSpec
from rlm_fsm.values import (
    CodeError,
    ContextInfo,
    GivenFinal,
    HostCall,
    Outcome,
    Problem,
    TextRef,
    Usage,
    Variable,
    text_hash,
)

OLD = Path(__file__).parent / "data" / "events_v1.json"
GOLDEN = OLD.with_name("events_v2.json")
LONG = "0123456789abcdef" * (BLOB_CHARS // 16) + "!"
PAIR = "\ud83d\ude00"
"""Two lone surrogates that JSON would read as one character."""
CALL = CallId("0.m1")


def started() -> RunStarted:
    policy = Policy(max_steps=8, max_cost_usd=0.5, max_seconds=60)
    return RunStarted(
        query="How many?",
        context=ContextInfo(kind="document_list", chars=40, documents=2, lengths=(19, 19)),
        options=Options(
            policy=policy,
            system_prompt=LONG,
            subcall_system_prompt="Answer.",
            recursive_subcall_system_prompt="Work.",
            auto_finalize_var="answer",
            tools=(
                ToolSpec(
                    name="send",
                    signature="(to: str, *more) -> bool",
                    doc="Send it.",
                    parameters=(
                        ToolParameter(name="to"),
                        ToolParameter(name="more", kind="rest", is_required=False),
                    ),
                    needs_approval=True,
                    idempotent=False,
                ),
            ),
            prices=(
                AdapterPrice(
                    adapter="root",
                    model="m-1",
                    price=Price(prompt_usd_per_mtok=0.5, completion_usd_per_mtok=2),
                    source="given",
                ),
            ),
        ),
        environment={"python": "3.11", "repl": "monty"},
    )


# Effects

EFFECTS: tuple[Effect, ...] = (
    CallModel(
        frame=ROOT,
        call_id=CALL,
        purpose="turn",
        prompt=TextRef("a" * 64, 12),
        max_tokens=512,
        adapter="root",
    ),
    RunCode(frame=ROOT, call_id=CallId("0.c1"), code=LONG, watch=("answer",)),
    ResumeCode(frame=ROOT, call_id=CallId("0.c1"), outcomes=(Outcome("text", "4"),)),
    ReadVariable(frame=ROOT, call_id=CallId("0.r1"), name="answer"),
    CheckAnswer(frame=ROOT, call_id=CallId("0.k1"), text="1", data="1", schema="{}"),
    CallTool(frame=ROOT, call_id=CallId("0.4"), tool="send", arguments=TextRef("a" * 64, 12)),
    AskApproval(frame=ROOT, call_id=CallId("0.4"), tool="send", arguments=TextRef("a" * 64, 12)),
    Record(event=GuardTripped(frame=ROOT, guard="no_code", reason="Write code.")),
)


def test_effect_hashes_tell_effects_apart() -> None:
    variants = [
        *EFFECTS,
        replace(EFFECTS[0], max_tokens=513),
        replace(EFFECTS[0], prompt=TextRef("b" * 64, 12)),
        replace(EFFECTS[1], code=LONG + "!"),
        replace(EFFECTS[2], outcomes=()),
        Record(event=GuardTripped(frame=ROOT, guard="no_code", reason="Write it.")),
    ]
    assert len({effect_hash(effect) for effect in variants}) == len(variants)


SAMPLES: tuple[Event, ...] = (
    started(),
    EffectStarted(frame=ROOT, call_id=CALL, effect="CallModel", effect_hash="c" * 64),
    ModelReplied(
        frame=ROOT,
        call_id=CALL,
        text="```python\nprint('\u00e9\U0001f600\ud800')\n```",
        usage=Usage(100, 20, 120, cached_tokens=64, reasoning_tokens=8, estimated=True),
        model_id="m-1",
        finish_reason="stop",
        reasoning="hm",
        cost_usd=0.00125,
        request_id="r-1",
        cache_hit=True,
        cache_key="d" * 64,
        elapsed_s=0.25,
        clock_s=1.5,
    ),
    ModelFailed(frame=ROOT, call_id=CALL, error="rate_limit", message="slow down", status=429),
    CodePaused(
        frame=ROOT,
        call_id=CallId("0.c1"),
        calls=(
            HostCall(fn="llm_query", prompt="short"),
            HostCall(
                fn="ask",
                prompt=LONG,
                question="who?",
                model="small",
                max_tokens=64,
                recursive=False,
                dedupe=False,
            ),
            HostCall(fn="budget", prompt="", kind="budget"),
            HostCall(fn="send", prompt='{"to": "Ann"}', dedupe=False, kind="tool"),
            HostCall(fn="time", prompt="", kind="clock"),
        ),
        parallel=False,
        now_s=1795371300.25,
        elapsed_s=0.125,
    ),
    ApprovalAsked(frame=ROOT, call_id=CallId("0.4"), tool="send"),
    ApprovalGiven(
        frame=ROOT,
        call_id=CallId("0.4"),
        is_approved=False,
        reason="not now",
        by="ann",
        clock_s=1.25,
    ),
    ApprovalPostponed(frame=ROOT, call_id=CallId("0.4"), clock_s=1.25),
    ToolReturned(frame=ROOT, call_id=CallId("0.4"), value='{"sent": true}', elapsed_s=0.5),
    ToolFailed(frame=ROOT, call_id=CallId("0.4"), error="raised", message="KeyError: 'x'"),
    CodeExecuted(
        frame=FrameId("0.1"),
        call_id=CallId("0.1.c2"),
        stdout="4\n",
        stdout_chars=2,
        error=CodeError(kind="NameError", message="x", traceback="line 1\nNameError: x"),
        watched={"b": "2", "a": PAIR},
        repl_lost=True,
        final=GivenFinal(form="SUBMIT", text="{'a': 1}", kind="dict", data='{"a":1}'),
        variables=(Variable(name="a", summary="int 1", is_new=True), Variable(name="b")),
        more_variables=7,
    ),
    ReplFailed(frame=ROOT, call_id=CallId("0.c1"), message="no process"),
    VariableRead(frame=ROOT, call_id=CallId("0.r1"), name="x", error="gone", names=("y", "z")),
    AnswerChecked(
        frame=ROOT,
        call_id=CallId("0.k1"),
        problems=(Problem(path="items[2]", message="not a number", found='"x"'),),
        more_problems=1,
    ),
    GuardTripped(frame=ROOT, guard="min_steps", reason="Look again."),
    LimitReached(frame=ROOT, limit="max_steps", allowed=8, used=8.5),
    HistoryCompacted(
        frame=ROOT, call_id=CallId("0.s1"), messages=6, tokens_before=900, tokens_after=300
    ),
    RunResumed(options=started().options, on_uncertain="fail", environment={"python": "3.12"}),
    Cancelled(reason="Ctrl-C", frame=FrameId("0.1"), clock_s=2.5, not_made=(CallId("0.1.1"),)),
    DeadlinePassed(clock_s=60.25),
    RunFinished(status="partial", output="42", limit="max_steps", error="late"),
)


def golden() -> dict[str, Any]:
    """The format today."""
    encoded = [encode(event) for event in SAMPLES]
    return {
        "events": [[item.kind, item.version, item.data] for item in encoded],
        "blobs": [digest for item in encoded for digest, _ in item.blobs],
        "effects": {type(effect).__name__: effect_hash(effect) for effect in EFFECTS},
    }


def test_the_samples_hold_every_kind() -> None:
    assert [type(event) for event in SAMPLES] == list(EVENTS)


def test_the_format_is_what_it_was() -> None:
    assert golden() == json.loads(GOLDEN.read_text()), (
        "the format of events has changed: old logs would not be read. Raise the version of the "
        "kind in codec.VERSIONS and add an upcaster (see this file's head)"
    )


def loaded(path: Path) -> list[Event]:
    """The events of a golden file."""
    texts = {text_hash(text): text for event in SAMPLES for _, text in encode(event).blobs}
    old = json.loads(path.read_text())["events"]
    return [decode(kind, version, data, texts.__getitem__) for kind, version, data in old]


def test_events_still_load() -> None:
    assert loaded(GOLDEN) == list(SAMPLES)


def as_version_1(event: Event, options: Options) -> Event:
    """A sample as version 1 could say it; `options` are what its runs went by."""
    match event:
        case RunStarted() | RunResumed():
            return replace(event, options=options)
        case Cancelled():
            return replace(event, clock_s=0.0, not_made=())
        case ModelReplied():
            return replace(event, cache_key="")
        case CodePaused():
            return replace(event, calls=event.calls[:2], now_s=None)
        case RunFinished():
            return replace(event, value=None)
        case CodeExecuted():
            return replace(event, final=None, variables=(), more_variables=0)
        case _:
            return event


SINCE_VERSION_2 = (
    DeadlinePassed,
    AnswerChecked,
    HistoryCompacted,
    ApprovalAsked,
    ApprovalGiven,
    ApprovalPostponed,
    ToolReturned,
    ToolFailed,
)


def test_events_of_version_1_still_load_with_the_words_and_rules_of_then() -> None:
    events = loaded(OLD)
    begun = events[0]
    assert isinstance(begun, RunStarted)
    then = begun.options
    assert then == replace(
        started().options,
        profile=then.profile,
        loop_limit=None,
        fallback_code=None,
        subcall_guard_steps=None,
        fallback_guard_steps=None,
        auto_finalize_reject_patterns=(),
        auto_finalize_reject_limit=3,
        auto_finalize_reject_feedback=None,
        tell_budget=False,
        prices=(),
        tools=(),
        compaction=0.0,
        compaction_limit=10,
        compaction_max_tokens=800,
        rules=1,
    )
    assert (then.profile.name, then.profile.version) == ("pyrlm", 1)
    assert then.profile.system == LONG
    assert then.profile.output_head == 4_000
    known = [event for event in SAMPLES if not isinstance(event, SINCE_VERSION_2)]
    assert events == [as_version_1(event, then) for event in known]


def test_effects_have_the_hashes_that_they_always_had() -> None:
    then = json.loads(OLD.read_text())["effects"]
    assert then.items() <= golden()["effects"].items()


if __name__ == "__main__" and sys.argv[1:] == ["--rewrite"]:
    GOLDEN.write_text(json.dumps(golden(), indent=1) + "\n")
