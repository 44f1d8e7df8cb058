"""What every event log owes the interpreter. Subclass `LogContract` once per log."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest

from effects.log import EventLog
from rlm_fsm.errors import LogConflict, RunNotFound, UsageError
from rlm_fsm.event import (
    Cancelled,
    CodeExecuted,
    CodePaused,
    EffectStarted,
    Event,
    ModelReplied,
    RunFinished,
    RunStarted,
)
from rlm_fsm.ids import ROOT, CallId, RunId
from rlm_fsm.options import Options
from rlm_fsm.values import ContextInfo, HostCall, Usage, text_hash

RUN = RunId("run-1")
LONG = "Ein langer Text, der nicht in die Zeile paßt. \U0001f600\ud800 " * 200


def started(query: str = "How many?") -> RunStarted:
    """The first event of a run."""
    context = ContextInfo(kind="string", chars=100, documents=1)
    return RunStarted(query=query, context=context, options=Options())


def intent(number: int) -> EffectStarted:
    """A model call that is about to start."""
    call = CallId(f"0.m{number}")
    return EffectStarted(frame=ROOT, call_id=call, effect="CallModel", effect_hash="a" * 64)


def replied(number: int, text: str = "```python\nprint(1)\n```") -> ModelReplied:
    """The outcome of a model call."""
    call = CallId(f"0.m{number}")
    return ModelReplied(
        frame=ROOT, call_id=call, text=text, usage=Usage(100, 10, 110), cost_usd=0.01
    )


def finished(output: str = "42") -> RunFinished:
    """The end of a run."""
    return RunFinished(status="finished", output=output)


def a_run(turns: int = 3, query: str = "How many?") -> list[Event]:
    """The events of a whole small run: short texts, long ones, a batch, an end."""
    events: list[Event] = [started(query)]
    for number in range(1, turns + 1):
        cell = CallId(f"0.c{number}")
        calls = (HostCall(fn="llm_query", prompt=f"{query} {number} {LONG}"),)
        events += [
            intent(number),
            replied(number),
            CodePaused(frame=ROOT, call_id=cell, calls=calls),
            CodeExecuted(frame=ROOT, call_id=cell, stdout=f"{number}\n" * 300),
        ]
    return [*events, finished()]


def events_in(log: EventLog, run_id: RunId = RUN, until: int | None = None) -> list[Event]:
    """The events of a run, without their envelopes."""
    return [logged.event for logged in log.load(run_id, until=until)]


def fill(log: EventLog, run_id: RunId, events: Sequence[Event], batch: int = 2) -> int:
    """Append events in small commits and return the last sequence number."""
    seq = 0
    for start in range(0, len(events), batch):
        seq = log.append(run_id, seq, events[start : start + batch])
    return seq


class LogContract:
    """The tests. A subclass says how an empty log is had."""

    def make(self) -> EventLog:
        """An empty log."""
        raise NotImplementedError

    @pytest.fixture
    def log(self) -> Iterator[EventLog]:
        log = self.make()
        yield log
        log.close()

    def test_what_was_appended_is_loaded(self, log: EventLog) -> None:
        events = a_run()
        assert fill(log, RUN, events) == len(events)
        assert events_in(log) == events

    def test_events_are_numbered_from_one_and_bear_the_time(self, log: EventLog) -> None:
        before = datetime.now(UTC).replace(microsecond=0)
        fill(log, RUN, a_run(), batch=5)
        logged = list(log.load(RUN))
        assert [item.seq for item in logged] == list(range(1, len(logged) + 1))
        for item in logged:
            assert before <= datetime.fromisoformat(item.at) <= datetime.now(UTC)

    def test_append_returns_the_last_sequence_number(self, log: EventLog) -> None:
        assert log.append(RUN, 0, [started(), intent(1)]) == 2
        assert log.append(RUN, 2, [replied(1)]) == 3
        assert log.append(RUN, 3, []) == 3

    def test_loading_stops_at_until(self, log: EventLog) -> None:
        events = a_run()
        fill(log, RUN, events)
        assert events_in(log, until=4) == events[:4]
        assert events_in(log, until=0) == []
        assert events_in(log, until=999) == events

    @pytest.mark.parametrize("expected", [1, 3, 99])
    def test_a_stale_sequence_number_is_a_conflict(self, log: EventLog, expected: int) -> None:
        log.append(RUN, 0, [started(), intent(1)])
        with pytest.raises(LogConflict, match="has 2 events"):
            log.append(RUN, expected, [replied(1)])
        assert len(events_in(log)) == 2

    def test_a_run_begins_once(self, log: EventLog) -> None:
        log.append(RUN, 0, [started()])
        with pytest.raises(LogConflict):
            log.append(RUN, 0, [started()])

    def test_a_run_that_did_not_begin_does_not_go_on(self, log: EventLog) -> None:
        with pytest.raises(LogConflict):
            log.append(RUN, 1, [replied(1)])

    @pytest.mark.parametrize(
        ("expected", "events"), [(0, [intent(1)]), (0, [started(), started()]), (1, [started()])]
    )
    def test_run_started_is_the_first_event_and_only_the_first(
        self, log: EventLog, expected: int, events: list[Event]
    ) -> None:
        if expected:
            log.append(RUN, 0, [started()])
        with pytest.raises(UsageError, match="RunStarted"):
            log.append(RUN, expected, events)

    @pytest.mark.parametrize("run_id", ["", "two words", "line\nbreak", "ü", "x" * 65])
    def test_a_run_id_is_a_short_plain_name(self, log: EventLog, run_id: str) -> None:
        with pytest.raises(UsageError, match="run_id"):
            log.append(RunId(run_id), 0, [started()])

    def test_a_batch_is_appended_whole_or_not_at_all(self, log: EventLog) -> None:
        log.append(RUN, 0, [started()])
        bad = ModelReplied(frame=ROOT, call_id=CallId("0.m1"), text=None)  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            log.append(RUN, 1, [intent(1), bad])
        assert events_in(log) == [started()]
        assert log.append(RUN, 1, [intent(1), replied(1)]) == 3

    def test_runs_do_not_mix(self, log: EventLog) -> None:
        other = RunId("run-2")
        first, second = a_run(2, "one"), a_run(3, "two")
        seqs = {RUN: 0, other: 0}
        for pair in zip(first, second[: len(first)], strict=True):
            for run_id, event in zip(seqs, pair, strict=True):
                seqs[run_id] = log.append(run_id, seqs[run_id], [event])
        assert events_in(log) == first
        assert events_in(log, other) == second[: len(first)]

    def test_a_run_that_is_not_there_is_not_found(self, log: EventLog) -> None:
        with pytest.raises(RunNotFound, match="holds no run 'run-1'"):
            log.load(RUN)

    def test_runs_are_listed_newest_first(self, log: EventLog) -> None:
        assert log.runs() == []
        for number in range(3):
            log.append(RunId(f"r{number}"), 0, [started(f"query {number}")])
        log.append(RunId("r0"), 1, [finished("done")])
        infos = log.runs()
        assert [info.run_id for info in infos] == ["r2", "r1", "r0"]
        assert [info.query for info in infos] == ["query 2", "query 1", "query 0"]
        assert [info.status for info in infos] == ["running", "running", "finished"]
        assert [info.output for info in infos] == [None, None, "done"]
        assert [info.events for info in infos] == [1, 1, 2]
        assert infos[2].created_at <= infos[2].updated_at

    def test_a_run_that_goes_on_after_its_end_is_running_again(self, log: EventLog) -> None:
        log.append(RUN, 0, [started(), RunFinished(status="partial", output="so far")])
        assert log.runs()[0].status == "partial"
        log.append(RUN, 2, [intent(1)])
        assert (log.runs()[0].status, log.runs()[0].output) == ("running", None)

    def test_a_run_is_found_by_the_beginning_of_its_id(self, log: EventLog) -> None:
        for run_id in ("abc-1", "abc-2", "ab", "x%y_z"):
            log.append(RunId(run_id), 0, [started()])
        assert log.find("abc-1") == "abc-1"
        assert log.find("ab") == "ab"
        assert log.find("x%") == "x%y_z"
        with pytest.raises(RunNotFound, match="several runs begin with 'abc': abc-1, abc-2"):
            log.find("abc")
        for absent in ("ABC-1", "%", "abc-1x", "\ud800"):
            with pytest.raises(RunNotFound, match="holds no run"):
                log.find(absent)

    @pytest.mark.parametrize("text", ["", "short", "\0\ud800\udc00 é", LONG, LONG[:5000]])
    def test_a_text_is_kept_by_content(self, log: EventLog, text: str) -> None:
        digest = log.put_blob(text)
        assert digest == text_hash(text) == log.put_blob(text)
        assert log.blob(digest) == text

    def test_a_text_that_was_never_kept_is_none(self, log: EventLog) -> None:
        assert log.blob("0" * 64) is None

    def test_the_long_texts_of_events_are_kept_texts(self, log: EventLog) -> None:
        log.append(RUN, 0, [started()])
        log.append(RUN, 1, [replied(1, LONG)])
        assert log.blob(text_hash(LONG)) == LONG

    def test_any_text_can_be_asked_and_answered(self, log: EventLog) -> None:
        odd = "\ud83d\ude00 \ud800 \0 \U0001f600"
        log.append(RUN, 0, [started(odd), Cancelled(reason=odd), finished(odd)])
        assert events_in(log) == [started(odd), Cancelled(reason=odd), finished(odd)]
        assert log.runs()[0].query.endswith("\U0001f600")

    def test_a_log_may_be_read_while_it_is_written(self, log: EventLog) -> None:
        fill(log, RUN, a_run()[:-1])
        reading = log.load(RUN)
        next(reading)
        log.append(RUN, len(a_run()) - 1, [finished()])
        assert len(list(reading)) == len(a_run()) - 2

    def test_closing_twice_is_safe(self, log: EventLog) -> None:
        log.close()
        log.close()
