"""Who watches a run: told of each event once it is durable."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rlm_fsm.event import Event
from rlm_fsm.ids import RunId

_logger = logging.getLogger("rlm_fsm")


@dataclass(frozen=True, slots=True)
class Appended:
    """An event that is durable: what listeners are handed."""

    run_id: RunId
    seq: int
    """Position in the run, counted from 1."""
    event: Event


class Listener(Protocol):
    """Watches a run. It can't change it; its errors are logged and never end the run."""

    def handle(self, event: Appended) -> None:
        """Called for each event once it is durable, in order, on the run's thread."""
        ...


def tell(listeners: Sequence[Listener], run_id: RunId, seq: int, batch: Sequence[Event]) -> None:
    """Tell of events that were appended after event number `seq`."""
    for listener in listeners:
        for number, event in enumerate(batch, seq + 1):
            try:
                listener.handle(Appended(run_id, number, event))
            except Exception:
                _logger.exception("an event listener failed; the run goes on")
