"""What every event log owes those who lead runs and fork them. Subclass once per log."""

import random
from collections.abc import Iterator

import pytest

from effects.log import EventLog
from rlm_fsm.errors import LogConflict, RunBusy, RunNotFound, UsageError
from rlm_fsm.event import Event
from rlm_fsm.ids import RunId
from tests.log_contract import LONG, RUN, a_run, events_in, fill, finished, intent, replied, started

FORK = RunId("fork")
GRANDCHILD = RunId("grandchild")


class RunsContract:
    """The tests. A subclass says how an empty log is had."""

    def make(self) -> EventLog:
        """An empty log."""
        raise NotImplementedError

    @pytest.fixture
    def log(self) -> Iterator[EventLog]:
        log = self.make()
        yield log
        log.close()

    # -- leading -----------------------------------------------------------------------------------

    def test_a_run_has_one_leader(self, log: EventLog) -> None:
        log.append(RUN, 0, [started()])
        lease = log.lead(RUN)
        with pytest.raises(RunBusy, match="run run-1 is being worked on"):
            log.lead(RUN)
        lease.release()
        lease.release()
        log.lead(RUN).release()

    def test_other_runs_may_be_led_meanwhile(self, log: EventLog) -> None:
        with log.lead(RUN), log.lead(RunId("run-2")):
            log.append(RUN, 0, [started()])
            log.append(RunId("run-2"), 0, [started()])

    def test_each_leader_has_a_higher_generation(self, log: EventLog) -> None:
        with log.lead(RUN) as lease:
            assert (lease.run_id, lease.generation) == (RUN, 1)
            log.append(RUN, 0, [started()])
        for generation in (2, 3, 4):
            with log.lead(RUN) as lease:
                assert lease.generation == generation
                log.append(RUN, generation - 1, [intent(generation)])

    def test_an_append_needs_no_lease(self, log: EventLog) -> None:
        log.append(RUN, 0, [started()])
        with log.lead(RUN) as lease:
            assert lease.generation == 1
        assert log.append(RUN, 1, [intent(1)]) == 2

    def test_leading_a_run_that_never_begins_leaves_no_trace(self, log: EventLog) -> None:
        log.lead(RUN).release()
        assert log.runs() == []
        with log.lead(RUN) as lease:
            assert lease.generation == 1

    def test_only_a_plain_id_can_be_led_or_forked_to(self, log: EventLog) -> None:
        log.append(RUN, 0, [started()])
        with pytest.raises(UsageError, match="run_id"):
            log.lead(RunId("two words"))
        with pytest.raises(UsageError, match="run_id"):
            log.fork(RunId(""), RUN, 1)

    # -- forks -------------------------------------------------------------------------------------

    def test_a_fork_begins_with_its_parents_events(self, log: EventLog) -> None:
        events = a_run()
        fill(log, RUN, events)
        log.fork(FORK, RUN, 6)
        assert events_in(log, FORK) == events[:6]
        assert [logged.seq for logged in log.load(FORK)] == [1, 2, 3, 4, 5, 6]
        own = [replied(2, LONG + "!"), finished("43")]
        assert log.append(FORK, 6, own) == 8
        assert events_in(log, FORK) == [*events[:6], *own]
        assert events_in(log) == events

    def test_a_fork_can_be_read_up_to_any_event(self, log: EventLog) -> None:
        events = [*a_run()[:6], intent(8), finished()]
        fill(log, RUN, a_run())
        log.fork(FORK, RUN, 6)
        log.append(FORK, 6, events[6:])
        for until in range(10):
            assert events_in(log, FORK, until=until) == events[:until]

    def test_forks_may_have_forks_that_part_anywhere(self, log: EventLog) -> None:
        events = a_run()
        fill(log, RUN, events)
        log.fork(FORK, RUN, 6)
        log.append(FORK, 6, [intent(7), replied(7)])
        log.fork(GRANDCHILD, FORK, 7)
        log.append(GRANDCHILD, 7, [replied(7, "other")])
        assert events_in(log, GRANDCHILD) == [*events[:6], intent(7), replied(7, "other")]
        log.fork(RunId("early"), GRANDCHILD, 3)
        log.append(RunId("early"), 3, [finished("early")])
        assert events_in(log, RunId("early")) == [*events[:3], finished("early")]

    def test_a_fork_does_not_follow_its_parent(self, log: EventLog) -> None:
        log.append(RUN, 0, [started(), intent(1)])
        log.fork(FORK, RUN, 2)
        log.append(RUN, 2, [replied(1)])
        assert events_in(log, FORK) == [started(), intent(1)]

    def test_a_fork_of_nothing_begins_anew(self, log: EventLog) -> None:
        log.append(RUN, 0, [started("one")])
        log.fork(FORK, RUN, 0)
        assert events_in(log, FORK) == []
        with pytest.raises(UsageError, match="RunStarted"):
            log.append(FORK, 0, [intent(1)])
        log.append(FORK, 0, [started("two"), intent(1)])
        assert events_in(log, FORK) == [started("two"), intent(1)]
        assert log.runs()[0].query == "two"

    def test_a_fork_may_begin_with_events_of_its_own(self, log: EventLog) -> None:
        events = a_run()
        fill(log, RUN, events)
        own = [replied(2, LONG + "?"), finished("43")]
        with log.lead(FORK) as lease:
            assert lease.generation == 1
            assert log.fork(FORK, RUN, 6, own) == 8
            assert events_in(log, FORK) == [*events[:6], *own]
            assert log.fork(RunId("anew"), RUN, 0, [started("two"), intent(1)]) == 2
        listed = {info.run_id: info for info in log.runs()}
        assert (listed[FORK].status, listed[FORK].output) == ("finished", "43")
        assert (listed[RunId("anew")].query, listed[RunId("anew")].events) == ("two", 2)
        with log.lead(FORK) as lease:
            assert lease.generation == 2

    def test_a_fork_whose_own_events_are_refused_is_not_made(self, log: EventLog) -> None:
        fill(log, RUN, a_run())
        for at, own in ((6, [started()]), (0, [intent(1)])):
            with pytest.raises(UsageError, match="RunStarted"):
                log.fork(FORK, RUN, at, own)
        assert [info.run_id for info in log.runs()] == [RUN]

    def test_a_fork_is_listed_with_its_parent(self, log: EventLog) -> None:
        fill(log, RUN, a_run())
        log.fork(FORK, RUN, 14)
        log.fork(GRANDCHILD, FORK, 2)
        listed = {info.run_id: info for info in log.runs()}
        assert (listed[RUN].parent, listed[RUN].parent_seq) == (None, None)
        assert (listed[FORK].parent, listed[FORK].parent_seq) == (RUN, 14)
        assert (listed[GRANDCHILD].parent, listed[GRANDCHILD].parent_seq) == (FORK, 2)
        assert [listed[name].events for name in (RUN, FORK, GRANDCHILD)] == [14, 14, 2]
        assert {listed[name].query for name in listed} == {"How many?"}
        assert (listed[FORK].status, listed[FORK].output) == ("finished", "42")
        assert (listed[GRANDCHILD].status, listed[GRANDCHILD].output) == ("running", None)

    def test_an_append_to_a_fork_expects_what_it_shares(self, log: EventLog) -> None:
        fill(log, RUN, a_run())
        log.fork(FORK, RUN, 6)
        for stale in (0, 5, 7, 14):
            with pytest.raises(LogConflict, match="has 6 events"):
                log.append(FORK, stale, [started() if stale == 0 else intent(9)])
        assert log.append(FORK, 6, [intent(9)]) == 7

    @pytest.mark.parametrize("at", [-1, 3, 99, 2**70])
    def test_a_fork_from_an_event_that_is_not_there_is_refused(
        self, log: EventLog, at: int
    ) -> None:
        log.append(RUN, 0, [started(), intent(1)])
        with pytest.raises(UsageError, match=r"has the events 1 to 2"):
            log.fork(FORK, RUN, at)
        assert [info.run_id for info in log.runs()] == [RUN]

    def test_a_fork_of_an_unknown_run_is_refused(self, log: EventLog) -> None:
        with pytest.raises(RunNotFound, match="holds no run 'run-1'"):
            log.fork(FORK, RUN, 0)

    def test_a_fork_takes_no_name_that_is_taken(self, log: EventLog) -> None:
        fill(log, RUN, a_run())
        log.fork(FORK, RUN, 3)
        for name in (RUN, FORK):
            with pytest.raises(LogConflict, match=f"there is a run {name} already"):
                log.fork(name, RUN, 4)
        assert len(events_in(log, FORK)) == 3

    def test_a_fork_can_be_led_before_it_is_made_and_after(self, log: EventLog) -> None:
        log.append(RUN, 0, [started()])
        with log.lead(FORK) as lease:
            assert lease.generation == 1
            log.fork(FORK, RUN, 1)
            log.append(FORK, 1, [intent(1)])
        with log.lead(FORK) as lease:
            assert lease.generation == 2
            log.append(FORK, 2, [replied(1)])

    def test_any_family_of_forks_reads_as_if_each_had_been_copied(self, log: EventLog) -> None:
        dice = random.Random(7)
        family: dict[RunId, list[Event]] = {RUN: [started()]}
        log.append(RUN, 0, family[RUN])
        for number in range(60):
            run_id = dice.choice(list(family))
            events = family[run_id]
            if dice.random() < 0.3:
                fork, at = RunId(f"f{number}"), dice.randint(1, len(events))
                log.fork(fork, run_id, at)
                family[fork] = events[:at]
            else:
                new = [intent(number), replied(number)][: dice.randint(1, 2)]
                log.append(run_id, len(events), new)
                family[run_id] = [*events, *new]
        assert len(family) > 10
        for run_id, events in family.items():
            assert events_in(log, run_id) == events
