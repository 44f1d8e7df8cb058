"""Names of runs, frames and calls.

A run's id is chosen by the shell and is the only random name.
Every other id is derived from counters in the state, so that the same events always give
the same names:

- frame ``0`` is the root; ``0.2`` is the recursive sub-run started by its second host call;
- ``0.m3`` is the third model turn of frame ``0``;
- ``0.c3`` is its third cell, ``0.r1`` its first read of a variable;
- ``0.k1`` is its first check of an answer's type, ``0.s1`` its first summary of what was said;
- ``0.2`` is its second host call (and, when that call recurses, the frame it opens), ``0.2~2`` the
  second attempt at it, when the first reply did not fit its schema.
"""

from typing import NewType

RunId = NewType("RunId", str)
FrameId = NewType("FrameId", str)
CallId = NewType("CallId", str)

ROOT = FrameId("0")


def turn_id(frame: FrameId, number: int) -> CallId:
    """The `number`-th model turn of a frame, counted from 1."""
    return CallId(f"{frame}.m{number}")


def cell_id(frame: FrameId, number: int) -> CallId:
    """The `number`-th cell that a frame runs, counted from 1."""
    return CallId(f"{frame}.c{number}")


def read_id(frame: FrameId, number: int) -> CallId:
    """The `number`-th variable that a frame reads for an answer, counted from 1."""
    return CallId(f"{frame}.r{number}")


def check_id(frame: FrameId, number: int) -> CallId:
    """The `number`-th answer of a frame whose type is checked, counted from 1."""
    return CallId(f"{frame}.k{number}")


def compaction_id(frame: FrameId, number: int) -> CallId:
    """The `number`-th summary of a frame's conversation that is asked for, counted from 1."""
    return CallId(f"{frame}.s{number}")


def host_call_id(frame: FrameId, number: int) -> CallId:
    """The `number`-th call that a frame's code makes to the host, counted from 1."""
    return CallId(f"{frame}.{number}")


def attempt_id(call_id: CallId, number: int) -> CallId:
    """The `number`-th attempt at a host call; the first has the call's own name."""
    return CallId(f"{call_id}~{number}")


def first_of(call_id: CallId) -> CallId:
    """The host call that an attempt belongs to; any other id is its own."""
    return CallId(call_id.partition("~")[0])


def child_frame(call_id: CallId) -> FrameId:
    """The frame that a recursive host call opens: it bears the call's own name."""
    return FrameId(call_id)


def frame_of(call_id: CallId) -> FrameId:
    """The frame that made a call."""
    return FrameId(call_id.rpartition(".")[0])


def order_of(frame: FrameId) -> tuple[int, ...]:
    """Where a frame stands among others: after those that were asked for before it, and after the
    one that asked for it."""
    return tuple(map(int, frame.split(".")))


def depth_of(frame: FrameId) -> int:
    """0 for the root, 1 for its sub-runs, and so on."""
    return frame.count(".")
