"""How many outcomes one commit takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.commits import times_ideal
from effects.portions import CALLS, OUTCOME_S, WRITTEN_S, Portions

DISK_S = 150e-6


def after(*commits_s: float) -> Portions:
    portions = Portions()
    for seconds in commits_s:
        portions.took(seconds, 0)
    return portions


def test_before_any_commit_was_timed_outcomes_go_one_by_one():
    assert Portions().size(40, 40) == 1


@pytest.mark.parametrize(
    ("commit_s", "in_flight", "size"),
    [(20e-6, 10, 1), (DISK_S, 10, 1), (DISK_S, 100, 5), (5e-3, 10, 3), (5e-3, 100, 29)],
)
def test_slow_disks_and_many_calls_make_large_commits(commit_s: float, in_flight: int, size: int):
    assert after(commit_s).size(in_flight, in_flight) == size


def test_a_commit_takes_what_there_is_and_no_more():
    assert after(5e-3).size(2, 100) == 2


def test_what_outcomes_take_themselves_is_no_fault_of_the_disk():
    portions = Portions()
    portions.took(20 * WRITTEN_S, 20)
    assert portions.size(100, 100) == 1


def test_a_commit_that_was_slow_once_changes_nothing():
    assert after(DISK_S, DISK_S, 1.0, DISK_S).size(100, 100) == 5


def test_a_disk_that_has_become_slow_does():
    assert after(DISK_S, *[5e-3] * 8).size(100, 100) == 29


def test_calls_that_are_quicker_than_their_commits_go_in_ever_larger_ones():
    portions = after(OUTCOME_S**2 / CALLS)
    taken = [portions.size(10, 10) for _ in range(40)]
    assert taken[:11] == [1] * 11
    assert taken[11] == 2
    assert taken[-1] >= 8


def test_and_in_smaller_ones_again_when_none_is_left():
    portions = Portions()
    while portions.size(10, 10) < 8:
        pass
    for _ in range(3):
        assert portions.size(1, 10) == 1
    assert portions.size(10, 10) == 1


@given(
    seconds=st.lists(st.floats(0, 10), max_size=20),
    waiting=st.lists(st.integers(1, 2_000), min_size=1, max_size=50),
    in_flight=st.integers(0, 2_000),
)
def test_each_commit_takes_at_least_one_outcome_and_none_that_is_not_there(
    seconds: list[float], waiting: list[int], in_flight: int
):
    portions = after(*seconds)
    for count in waiting:
        assert 1 <= portions.size(count, in_flight) <= count


@pytest.mark.parametrize("workers", [10, 100])
@pytest.mark.parametrize("disk_s", [20e-6, DISK_S, 5e-3])
def test_no_fixed_size_is_much_better_for_a_batch(disk_s: float, workers: int):
    """The real interpreter on a clock moved by hand: 1,000 calls of 20 ms."""
    fixed = [times_ideal(disk_s, size, workers) for size in (1, 4, 16, 64)]
    assert times_ideal(disk_s, None, workers) <= 1.1 * min(fixed)


def test_ten_workers_lose_next_to_nothing_on_a_quick_disk():
    assert times_ideal(DISK_S, None, 10) < 1.02
