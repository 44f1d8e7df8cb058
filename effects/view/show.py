"""A recorded run as a person reads it: the steps of its trace, then how it ended."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from rich.console import Console, RenderableType

from effects.view import blocks
from effects.view.cut import head, seconds, tokens
from effects.view.plain import size, totals
from rlm_fsm.numbers import counted
from rlm_fsm.state import RunState
from rlm_fsm.trace import Trace, TraceStep

_CALLS_SHOWN = 6
"""Subcalls shown of a batch, unless all is asked for."""


def show_run(
    console: Console,
    run_id: str,
    state: RunState,
    steps: Trace,
    *,
    full: bool,
    origin: str = "",
    marks: Mapping[int, Sequence[str]] | None = None,
    advice: str = "",
    sandbox: Sequence[str] = (),
) -> None:
    """Print a run.

    `full`: nothing is cut. `origin`: where a fork comes from. `marks`: what is to be said between
    the steps, by the number of steps before it. `advice`: how to go on with it.
    `sandbox`: what kept the code of its last part in, in lines.
    """
    console.print(blocks.question(state.query))
    for part in _about(run_id, state, origin, sandbox):
        console.print(part)
    for part in _steps(console, steps, full, marks or {}):
        console.print(part)
    for part in _end(state, full, advice):
        console.print(part)


def _about(
    run_id: str, state: RunState, origin: str, sandbox: Sequence[str]
) -> Iterator[RenderableType]:
    if state.context is not None:
        about = size(state.context.chars, state.context.documents)
        yield blocks.aside(f"{about} · {state.options.repl_backend} REPL · run {run_id}")
    for line in sandbox:
        yield blocks.aside(line)
    if origin:
        yield blocks.aside(origin)


def _steps(
    console: Console, steps: Trace, full: bool, marks: Mapping[int, Sequence[str]]
) -> Iterator[RenderableType]:
    turns, told = 0, set[str]()
    before = 0
    for place in sorted({*marks, len(steps)}):
        part = steps.steps[before:place]
        before = place
        for group, found in groupby(part, key=_batch):
            batch = list(found)
            if group is not None:
                if group not in told:
                    yield _asked(batch[0])
                told.add(group)
                yield from _calls(batch, console.width, full)
                continue
            for step in batch:
                turns += step.kind == "root_call"
                yield from _step(step, turns, full)
        for text in marks.get(place, ()):
            yield blocks.mark(text)


def _end(state: RunState, full: bool, advice: str) -> Iterator[RenderableType]:
    yield blocks.rule(state.status, totals(state))
    if state.limit:
        yield blocks.note("limit", state.limit)
    if state.error:
        cause = state.cause or state.status
        yield blocks.note(cause, state.error.removeprefix(f"{cause}: "))
    if state.output.strip():
        lines = blocks.WHOLE if full else 20
        yield blocks.output(state.output, first=lines, last=lines)
    if advice:
        yield blocks.mark(advice)


def _step(step: TraceStep, turn: int, full: bool) -> Iterator[RenderableType]:
    first, last = (blocks.WHOLE, blocks.WHOLE) if full else (8, 4)
    match step.kind:
        case "root_call":
            yield blocks.rule(f"turn {turn}", _facts(step))
            if step.error:
                yield blocks.error(step.error)
            elif text := blocks.beside_code(step.output or "", has_code=bool(step.code)):
                yield blocks.said(text, first=first)
            if step.code:
                yield blocks.code(step.code, first=3 * first, last=2 * last)
        case "repl_exec":
            if step.stdout or not step.error:
                yield blocks.output(step.stdout or "", first=first, last=last)
            if step.error:
                yield blocks.error(step.error, first=first, last=last)
        case "tool" | "approval":
            yield from _of_tool(step, full)
        case "compaction" if step.depth == 0:
            facts = " · ".join(filter(None, (step.prompt_summary, _facts(step))))
            yield blocks.aside(f"history · {facts}")
            if step.error:
                yield blocks.error(step.error, first=first)
            elif full and step.output:
                yield blocks.said(step.output, first=first)
        case "guard":
            yield blocks.note(step.prompt_summary or "guard", step.output or "", first=first)
        case _:
            yield from _of_sub_run(step, full)


def _batch(step: TraceStep) -> str | None:
    """The batch of subcalls that a step belongs to."""
    return None if step.kind in ("tool", "approval") else step.parallel_group_id


def _asked(first: TraceStep) -> RenderableType:
    """How many subcalls a cell asked for, and the head of a prompt."""
    prompt = head(first.prompt_summary or "", 200)
    return blocks.aside(f"{counted(first.parallel_total or 1, 'subcall')} asked  “{prompt}”")


def _calls(batch: list[TraceStep], width: int, full: bool) -> Iterator[RenderableType]:
    """The subcalls of one batch in their order; the beginnings of sub-runs are among them."""
    batch = sorted(batch, key=lambda step: step.parallel_index or 0)
    shown = batch if full else batch[:_CALLS_SHOWN]
    for step in shown:
        if step.kind.endswith("recursive_subcall"):
            name = "sub-run"
        else:
            name = f"{(step.parallel_index or 0) + 1:>3}"
        reply = step.error or step.output or ""
        if full:
            yield blocks.aside(f"{name} · {_facts(step)}", deep=True)
            show = blocks.error if step.error else blocks.output
            yield show(reply, first=blocks.WHOLE, last=blocks.WHOLE)
        else:
            failed = step.error is not None
            yield blocks.call(name, reply, failed=failed, width=width - 12)
    hits = sum(step.cache_hit for step in batch)
    if hits and not full:
        yield blocks.aside(f"{hits:,} of {len(batch):,} from the cache", deep=True)
    if len(shown) < len(batch):
        failures = sum(step.error is not None for step in batch[len(shown) :])
        also = f", {failures:,} of them failed" if failures else ""
        yield blocks.aside(f"… {len(batch) - len(shown):,} more{also}", deep=True)


def _of_tool(step: TraceStep, full: bool) -> Iterator[RenderableType]:
    """A call of a tool, or a person's answer for one, on a line; whole when all is asked for."""
    call, reply = step.prompt_summary or "", step.error or step.output or ""
    if full:
        yield blocks.aside(f"{step.kind} · {call}")
        show = blocks.error if step.error else blocks.output
        yield show(reply, first=blocks.WHOLE, last=blocks.WHOLE)
    else:
        failed = "failed: " if step.error else ""
        yield blocks.aside(f"{step.kind} · {head(call, 100)} → {failed}{head(reply, 100)}")


def _of_sub_run(step: TraceStep, full: bool) -> Iterator[RenderableType]:
    """A step below the root, on a line; whole when all is asked for."""
    what = step.kind.removeprefix("sub_").replace("_", " ")
    text = step.error or step.stdout or step.output or ""
    yield blocks.aside(f"{'  ' * step.depth}{what} · {head(text, 200)}")
    if full:
        if step.code and step.kind.endswith("root_call"):
            yield blocks.code(step.code, first=blocks.WHOLE, last=blocks.WHOLE)
        elif text:
            yield blocks.output(text, first=blocks.WHOLE, last=blocks.WHOLE)


def _facts(step: TraceStep) -> str:
    facts = [] if step.usage is None else [tokens(step.usage)]
    if step.cache_hit:
        facts.append("from the cache")
    if step.elapsed is not None:
        facts.append(seconds(step.elapsed))
    return " · ".join(facts)
