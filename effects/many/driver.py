"""Driving a batch: which jobs are missing, and their runs a few at a time.

1. A job's run has a name that follows from the batch and the job. So whoever starts the batch again
   finds the runs that are there: those that have ended give their rows, those that were stopped go
   on, the others begin. Nothing else is kept of a batch.
2. One process works on a batch at a time: it holds the lease of a run that has the batch's name.
3. What goes wrong with a run is its row's business; the others go on. A refused key stops the
   batch: it would refuse the others too.
4. Runs that the budget cut short go on once more, if enough is left: one after the other, when no
   other run goes on, each with all that is left. A share of it could be what they had already. No
   job begins before that: what was paid for comes first.
5. Whatever a run raises is its row, even what is no `Exception`; but Ctrl-C, a cancellation of the
   batch and the end of its coroutine go through.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from effects.calling import cancellations
from effects.jobs import Parts, begin, go_on, open_log, read_events
from effects.listeners import Appended
from effects.log.base import EventLog
from effects.many.budget import LIMITS, SHARED, Ledger, Limit, Used
from effects.many.job import CheckedJob
from effects.many.refused import refused_by
from effects.many.rows import JobResult, Origin, row_of
from effects.replaying import folded
from effects.repls._pool import POOL
from effects.result import RunResult, result_of
from effects.sessions import OnChangedOutput
from rlm_fsm.bills import NO_BILLS, expected
from rlm_fsm.effect import CallModel
from rlm_fsm.errors import ModelAuthError, RLMError, RunBusy
from rlm_fsm.event import OnUncertain, RunStarted
from rlm_fsm.fold import advance
from rlm_fsm.ids import RunId
from rlm_fsm.numbers import counted, number
from rlm_fsm.options import Options
from rlm_fsm.policy import Policy
from rlm_fsm.price import NANO_USD
from rlm_fsm.state import INITIAL, RunState
from rlm_fsm.values import ContextInfo

_logger = logging.getLogger("rlm_fsm")

OnRow = Callable[[JobResult], None]


class Watcher(Protocol):
    """Shows a batch."""

    def begin(self, name: str, jobs: int) -> None:
        """The batch begins; the rows of jobs that have ended come first."""
        ...

    def handle(self, event: Appended) -> None:
        """An event of any run."""
        ...

    def ended(self, row: JobResult) -> None:
        """A job has its row."""
        ...

    def close(self) -> None:
        """The batch has ended, in whatever way."""
        ...


@dataclass(kw_only=True)
class Batch:
    """One batch in this process."""

    name: str
    jobs: Sequence[CheckedJob]
    parts: Parts
    options: Options
    """Of runs that begin; their policy is the ledger's to say."""
    ledger: Ledger
    max_runs: int
    max_failures: int | None = None
    on_uncertain: OnUncertain = "retry"
    on_changed_output: OnChangedOutput = "raise"
    emit: OnRow
    """Is told each row once, as the jobs end."""

    stopped: str | None = None
    """Why no more runs are begun; at the end also why begun ones were left unfinished."""
    _rows: dict[str, JobResult] = field(default_factory=dict[str, JobResult])
    _queue: deque[CheckedJob] = field(default_factory=deque[CheckedJob])
    _cut: dict[str, JobResult] = field(default_factory=dict[str, JobResult])
    """Jobs that the budget cut short, with the rows that they have until they go on."""
    _again: deque[CheckedJob] = field(default_factory=deque[CheckedJob])
    """Those of them that are to go on."""
    _waiting: set[str] = field(default_factory=set[str])
    """Those of them that have not gone on."""
    _existing: set[RunId] = field(default_factory=set[RunId])
    _begun: set[RunId] = field(default_factory=set[RunId])
    """Those of them that this process has begun."""
    _short: Limit | None = None
    """A limit of the budget that has left a run unfinished."""
    _active: int = 0
    _failures: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def drive(self) -> list[JobResult]:
        """Run what is missing; the rows in the order of the jobs.

        Raises `RunBusy` when another process works on the batch.
        """
        with ExitStack() as stack:
            log = open_log(self.parts.log, stack)
            stack.enter_context(self._lease(log))
            self.parts = replace(self.parts, log=log)
            await self._look(log)
            await self._work()
            for row in self._cut.values():
                self._take(row)
            if self._short is not None and self.stopped is None:
                self.stopped = self.ledger.shortage(self._short)
        return [self._rows[job.id] for job in self.jobs]

    # -- before

    def _lease(self, log: EventLog) -> AbstractContextManager[object]:
        try:
            return log.lead(RunId(self.name))
        except RunBusy as busy:
            raise RunBusy(
                f"the batch {self.name} is being worked on by another process, or another call "
                f"in this one. Nothing was spent here. ({busy})",
                path=log.path,
            ) from busy

    async def _look(self, log: EventLog) -> None:
        """Take the rows of jobs that have ended; queue the others, stopped ones first."""
        there = {info.run_id for info in log.runs()}
        new: list[CheckedJob] = []
        for job in self.jobs:
            run_id = job.run_id(self.name)
            if run_id not in there:
                new.append(job)
                continue
            self._existing.add(run_id)
            try:
                result, state = self._read(log, run_id)
            except RLMError as error:
                self._take(row_of(job, run_id, None, origin="none", error=str(error)))
                continue
            self.ledger.note(run_id, _used(state), is_whole=_is_whole(state))
            if _is_missing(state, self.ledger.policy):
                self._queue.append(job)
            else:
                row = row_of(job, run_id, result, origin="log")
                self._take(self._with_refusal(row, state.options.policy))
            await asyncio.sleep(0)  # a long log shouldn't keep others from the loop
        self._queue.extend(new)

    def _read(self, log: EventLog, run_id: RunId) -> tuple[RunResult, RunState]:
        """A run as the log has it."""
        state = folded(log.load(run_id), run_id)
        # The log is closed when somebody asks for the trace.
        source = log if log.path == ":memory:" else log.path
        answer_type = self.parts.answer_type
        read = partial(read_events, source, run_id)
        return result_of(run_id, state, read, answer_type), state

    # -- work

    async def _work(self) -> None:
        count = min(self.max_runs, len(self._queue))
        async with POOL.in_use(), asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._worker())

    async def _worker(self) -> None:
        while queue := self._again or self._queue:
            job = queue.popleft()
            policy = await self._admitted(job)
            self._waiting.discard(job.id)
            if policy is None:
                self._leave(job)
                continue
            self._active += 1
            try:
                self._judge(job, await self._run(job, policy), policy)
            finally:
                self._active -= 1
                async with self._changed:
                    self._changed.notify_all()

    async def _admitted(self, job: CheckedJob) -> Policy | None:
        """The limits of the job's run, once the budget has room for it; None for never."""
        first = self._first_call(job)
        async with self._changed:
            while self.stopped is None:
                is_cut = job.id in self._cut
                if not self.ledger.is_idle if is_cut else self._waiting:
                    await self._changed.wait()
                    continue
                at_once = 1 if is_cut else min(self.max_runs - self._active, len(self._queue) + 1)
                policy = self.ledger.grant(
                    job.run_id(self.name), first=first, at_once=max(1, at_once)
                )
                if policy is not None:
                    return policy
                if self.ledger.is_idle or self.ledger.reached() is not None:
                    self.stopped = self.ledger.refusal(first)
                    break
                await self._changed.wait()
        return None

    async def _run(self, job: CheckedJob, policy: Policy) -> JobResult:
        """Run a job to its end, whatever end it is."""
        run_id = job.run_id(self.name)
        is_ours = run_id not in self._existing or run_id in self._begun
        origin: Origin = "new" if is_ours else "resumed"
        error: BaseException | None = None
        task = asyncio.current_task()
        try:
            if not await self._perform(job, run_id, policy) and not is_ours:
                origin = "log"
        except KeyboardInterrupt:
            raise
        except BaseException as failure:  # a user's adapter or session may raise anything
            if isinstance(failure, GeneratorExit) and not _goes_on(task):
                raise
            error = failure
            if not isinstance(failure, RLMError | asyncio.CancelledError):
                _logger.exception("job %s of batch %s failed", job.id, self.name)
            if cancellations():
                raise asyncio.CancelledError from failure
        finally:
            found = self._found(run_id)
            if found is None:
                self.ledger.settle(run_id, Used())
            else:
                limit, whole = found[0].limit, _is_whole(found[1])
                self.ledger.settle(run_id, _used(found[1]), is_whole=whole, limit=limit)
        told = None if error is None else _told(error)
        if isinstance(error, ModelAuthError) and self.stopped is None:
            self.stopped = f"the model service refused the key: {told}"
        return row_of(job, run_id, found[0] if found else None, origin=origin, error=told)

    async def _perform(self, job: CheckedJob, run_id: RunId, policy: Policy) -> bool:
        """Begin the job's run or go on with it; False when its share is no more than it had."""
        parts = replace(self.parts, labels={"batch": self.name, "job": job.id})
        context = await asyncio.to_thread(job.open)
        if run_id not in self._existing:
            self._existing.add(run_id)
            self._begun.add(run_id)
            options = replace(self.options, policy=policy)
            await begin(parts, job.query, context, options, run_id)
            return True
        assert not isinstance(parts.log, str), "the batch has opened its log"
        if not _is_missing(self._read(parts.log, run_id)[1], policy):
            return False
        await go_on(
            parts,
            run_id,
            context=context,
            policy=policy,
            on_uncertain=self.on_uncertain,
            on_changed_output=self.on_changed_output,
        )
        return True

    def _found(self, run_id: RunId) -> tuple[RunResult, RunState] | None:
        """What the log has of a run; None when it never began, or can't be read."""
        log = self.parts.log
        assert not isinstance(log, str), "the batch has opened its log"
        try:
            return self._read(log, run_id)
        except RLMError:
            return None

    # -- after

    def _judge(self, job: CheckedJob, row: JobResult, policy: Policy) -> None:
        """Take a row, unless the budget cut its run short for the first time."""
        limit = self.ledger.cut_by(row.limit, policy)
        if limit in SHARED:
            allowed = number(getattr(policy, limit))
            row = replace(row, error=f"the batch's budget left it {limit}={allowed}")
            if job.id not in self._cut:
                self._cut[job.id] = row
                self._again.append(job)
                self._waiting.add(job.id)
                return
        row = self._with_refusal(row, policy)
        self._short = self._short or limit
        self._cut.pop(job.id, None)
        self._take(row)
        self._failures += row.status == "failed"
        if self.max_failures is not None and self._failures > self.max_failures:
            self.stopped = self.stopped or f"more than {counted(self.max_failures, 'job')} failed"

    def _with_refusal(self, row: JobResult, granted: Policy) -> JobResult:
        """The row, and of a run that has finished what it had to do without under its limits."""
        if row.status != "finished" or row.error is not None:
            return row
        log = self.parts.log
        assert not isinstance(log, str), "the batch has opened its log"
        limit = refused_by(log, row.run_id, self.ledger, granted)
        if limit is None:
            return row
        who = "an earlier process" if row.origin == "log" else "the batch's budget"
        left = f"{who} left it {limit}={number(getattr(granted, limit))}"
        return replace(row, error=f"subcalls were refused: {left}")

    def _leave(self, job: CheckedJob) -> None:
        """A job that isn't begun, or doesn't go on."""
        if job.id in self._cut:
            return
        run_id = job.run_id(self.name)
        found = self._found(run_id) if run_id in self._existing else None
        result = found[0] if found else None
        row = row_of(job, run_id, result, origin="log" if result else "none")
        why = f"{self.stopped}. Start the batch again to go on"
        # What an earlier process left half done keeps its best answer.
        has_answer = row.status == "partial"
        self._take(replace(row, status="partial" if has_answer else "not_started", error=why))

    def _take(self, row: JobResult) -> None:
        self._rows[row.id] = row
        self.emit(row)

    def _first_call(self, job: CheckedJob) -> Used:
        """The estimate of a run's first call: of what the machine itself would ask."""
        options, price = self.options, self.options.price_of("root")
        unlimited = replace(options, policy=Policy(max_total_tokens=None))
        started = RunStarted(query=job.query, context=_SOME_CONTEXT, options=unlimited)
        effects = advance(INITIAL, [started]).effects
        asked = next(effect for effect in effects if isinstance(effect, CallModel))
        chars = asked.prompt.chars + _MORE_CHARS
        size = expected(NO_BILLS, chars, options.max_tokens)
        nusd = size.nusd(price.price) if price else 0
        return Used(tokens=size.tokens, cost_usd=nusd / NANO_USD)


_SOME_CONTEXT = ContextInfo(kind="string", chars=10**9, documents=1, digest="", source="")
_MORE_CHARS = 400
"""What a run's own context and limits may add to what is told of them."""


def _is_missing(state: RunState, policy: Policy) -> bool:
    """Whether a run is to go on: it was stopped, or a limit ended it that is larger now.

    A run that gave up by itself has ended: it would give up again.
    """
    if state.status == "finished" or state.cause == "guard":
        return False
    if state.limit is None:
        return True
    allowed = getattr(state.options.policy, state.limit, None)
    now = getattr(policy, state.limit, None)
    return allowed is not None and (now is None or now > allowed)


def _is_whole(state: RunState) -> bool:
    """Whether a run used what it needs: no limit that a budget may have set has ended it."""
    if state.status == "finished":
        return True
    return state.limit is not None and state.limit not in LIMITS


def _goes_on(task: asyncio.Task[object] | None) -> bool:
    """Whether a task is at work; its coroutine may be closed instead, by whoever drops it."""
    try:
        return asyncio.current_task() is task
    except RuntimeError:  # no loop runs
        return False


def _told(error: BaseException) -> str:
    """What a row says of an exception; of one that is no `Exception`, with its class."""
    name = type(error).__name__
    return str(error) or name if isinstance(error, Exception) else f"{name}: {error}".rstrip(": ")


def _used(state: RunState) -> Used:
    """What a run has used; calls whose cost isn't known with what they were expected to cost."""
    spent = state.spent
    return Used(
        tokens=spent.usage.total_tokens,
        cost_usd=spent.taken_usd,
        seconds=spent.seconds,
    )
