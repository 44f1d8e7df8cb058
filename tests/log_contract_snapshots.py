"""What every event log owes those who keep snapshots of sessions in it. Subclass once per log."""

from collections.abc import Iterator

import pytest

from effects.log import EventLog
from effects.log.base import KEPT_SNAPSHOTS, Snapshot
from rlm_fsm.errors import UsageError
from rlm_fsm.ids import ROOT, FrameId, RunId
from tests.log_contract import RUN, a_run, events_in, fill, replied
from tests.log_contract_runs import FORK, GRANDCHILD

CHILD = FrameId("0.1")


class SnapshotsContract:
    """The tests. A subclass says how an empty log is had."""

    def make(self) -> EventLog:
        """An empty log."""
        raise NotImplementedError

    @pytest.fixture
    def log(self) -> Iterator[EventLog]:
        log = self.make()
        fill(log, RUN, a_run())
        yield log
        log.close()

    def test_the_newest_snapshot_of_a_frame_is_given(self, log: EventLog) -> None:
        assert log.snapshot(RUN, ROOT) is None
        log.save_snapshot(RUN, ROOT, 4, b"four")
        log.save_snapshot(RUN, ROOT, 8, b"\0eight\xff")
        log.save_snapshot(RUN, CHILD, 12, b"child")
        assert log.snapshot(RUN, ROOT) == Snapshot(seq=8, data=b"\0eight\xff")
        assert log.snapshot(RUN, CHILD) == Snapshot(seq=12, data=b"child")
        assert log.snapshot(RunId("other"), ROOT) is None

    def test_a_snapshot_after_the_wanted_event_is_not_given(self, log: EventLog) -> None:
        log.save_snapshot(RUN, ROOT, 4, b"four")
        log.save_snapshot(RUN, ROOT, 8, b"eight")
        found = {until: log.snapshot(RUN, ROOT, until=until) for until in (3, 4, 7, 8, 99)}
        told = {until: saved and saved.data for until, saved in found.items()}
        assert told == {3: None, 4: b"four", 7: b"four", 8: b"eight", 99: b"eight"}

    def test_only_the_newest_snapshots_of_a_frame_stay(self, log: EventLog) -> None:
        log.save_snapshot(RUN, CHILD, 1, b"child")
        for seq in range(1, 9):
            log.save_snapshot(RUN, ROOT, seq, b"%d" % seq)
        oldest = 9 - KEPT_SNAPSHOTS
        assert log.snapshot(RUN, ROOT, until=oldest) == Snapshot(seq=oldest, data=b"%d" % oldest)
        assert log.snapshot(RUN, ROOT, until=oldest - 1) is None
        assert log.snapshot(RUN, CHILD) is not None

    def test_a_snapshot_of_the_same_event_takes_the_place_of_the_first(self, log: EventLog) -> None:
        for data in (b"first", b"second"):
            log.save_snapshot(RUN, ROOT, 4, data)
        assert log.snapshot(RUN, ROOT) == Snapshot(seq=4, data=b"second")
        assert log.snapshot(RUN, ROOT, until=3) is None

    @pytest.mark.parametrize("seq", [0, -1, 15])
    def test_a_snapshot_of_an_event_that_is_not_there_is_refused(
        self, log: EventLog, seq: int
    ) -> None:
        with pytest.raises(UsageError, match=f"has appended no event {seq}"):
            log.save_snapshot(RUN, ROOT, seq, b"ahead")
        assert log.snapshot(RUN, ROOT) is None

    def test_snapshots_can_be_dropped(self, log: EventLog) -> None:
        for frame in (ROOT, CHILD):
            log.save_snapshot(RUN, frame, 4, b"four")
        log.drop_snapshots(RUN, CHILD)
        log.drop_snapshots(RUN, CHILD)
        log.drop_snapshots(RunId("other"), ROOT)
        assert log.snapshot(RUN, CHILD) is None
        assert log.snapshot(RUN, ROOT) is not None

    def test_snapshots_are_no_part_of_the_history(self, log: EventLog) -> None:
        log.save_snapshot(RUN, ROOT, 4, b"four")
        assert events_in(log) == a_run()
        assert log.runs()[0].events == len(a_run())

    def test_a_fork_is_given_what_it_shares(self, log: EventLog) -> None:
        log.save_snapshot(RUN, ROOT, 4, b"four")
        log.save_snapshot(RUN, ROOT, 8, b"eight")
        log.fork(FORK, RUN, 6)
        log.append(FORK, 6, [replied(2), replied(3)])
        log.fork(GRANDCHILD, FORK, 7)
        for name in (FORK, GRANDCHILD):
            assert log.snapshot(name, ROOT) == Snapshot(seq=4, data=b"four")
            assert log.snapshot(name, ROOT, until=3) is None

    def test_a_fork_has_snapshots_of_its_own(self, log: EventLog) -> None:
        log.save_snapshot(RUN, ROOT, 4, b"four")
        log.fork(FORK, RUN, 6)
        log.append(FORK, 6, [replied(2), replied(3)])
        with pytest.raises(UsageError, match="has appended no event 6"):
            log.save_snapshot(FORK, ROOT, 6, b"the parent's event")
        log.save_snapshot(FORK, ROOT, 8, b"own")
        log.fork(GRANDCHILD, FORK, 7)
        assert log.snapshot(FORK, ROOT) == Snapshot(seq=8, data=b"own")
        assert log.snapshot(FORK, ROOT, until=7) == Snapshot(seq=4, data=b"four")
        assert log.snapshot(GRANDCHILD, ROOT) == Snapshot(seq=4, data=b"four")
        assert log.snapshot(RUN, ROOT) == Snapshot(seq=4, data=b"four")
