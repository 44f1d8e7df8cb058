"""What becomes of a reply and of a cell's end: code is run, an answer is judged or refused.

The handlers decide by phase and event; here is what they share. An answer that the text gives and
one that code gives take the same way, past the same guards.
"""

from rlm_fsm import frames, guards, typed
from rlm_fsm.calls import Step, put
from rlm_fsm.effect import ReadVariable, Record
from rlm_fsm.event import CodeExecuted, GuardTripped
from rlm_fsm.evolve import evolve
from rlm_fsm.ids import ROOT, cell_id, check_id, read_id
from rlm_fsm.options import Options
from rlm_fsm.profile import fill
from rlm_fsm.reply import Answer, Reply, TextAnswer, VariableAnswer
from rlm_fsm.shown import PENDING_CHARS, render
from rlm_fsm.state import Cell, Checking, Frame, Phase, RunState
from rlm_fsm.values import FinalForm, GivenFinal, text_hash
from rlm_fsm.wording import output, result_message


def run_next(state: RunState, frame: Frame, blocks: tuple[str, ...]) -> Step:
    """Run the next block of the newest reply as a cell of its own."""
    code, todo = blocks[0], blocks[1:]
    number = frame.cells + 1
    cell = Cell(id=cell_id(frame.id, number), code=code)
    running = evolve(frame, phase=Phase.RUNNING, cell=cell, cells=number, todo=todo)
    return put(state, running), (frames.run_effect(state, running),)


def after_cell(frame: Frame, event: CodeExecuted, options: Options) -> Frame:
    """The frame that knows what a cell showed and left.

    ``FINAL_VAR`` of the watched variable, called in code, is no answer of its own: what the
    variable holds is judged, also when it was refused before.
    """
    watched, final = event.watched.get(options.auto_finalize_var or "", ""), event.final
    names_it = (
        final is not None
        and final.form == "FINAL_VAR"
        and final.text == watched != ""
        and frame.id == ROOT
    )
    return evolve(
        frame,
        cell=None,
        shown=(*frame.shown, render(event, options.profile)),
        errors=frame.errors + (event.error is not None),
        best=watched or event.stdout.strip() or frame.best,
        watched=watched,
        final=None if names_it else final or frame.final,
        refused_value="" if names_it else frame.refused_value,
    )


def after_error(before: Frame, frame: Frame, event: CodeExecuted, options: Options) -> Frame:
    """The frame whose cell raised. What the cell left in the watched variable is no answer until
    that changes; the model is told of it, or of the answer that an earlier block gave."""
    is_new = frame.watched not in ("", before.watched) and frame.id == ROOT
    if is_new:
        frame = evolve(frame, refused_value=text_hash(frame.watched))
    if event.final is not None:
        return frame  # `render` has told of it
    if before.final is not None:
        return _with_pending(frame, options, before.final.form, before.final.text)
    if is_new:
        return _with_pending(frame, options, str(options.auto_finalize_var), frame.watched)
    return frame


def _with_pending(frame: Frame, options: Options, form: str, answer: str) -> Frame:
    """The frame whose last cell also shows an answer that wasn't accepted."""
    told = fill(options.profile.pending, form=form, answer=answer[:PENDING_CHARS])
    return _with_more(frame, "\n", told)


def given(state: RunState, frame: Frame, final: GivenFinal) -> Step:
    """End with an answer that code gave, if it says anything and the guards agree."""
    refused = guards.final_refusal(state, frame, final)
    if refused is not None:
        return refuse(state, frame, refused)
    return answered(state, frame, final.text, final.data)


def conclude(state: RunState, frame: Frame, answer: Answer, form: FinalForm) -> Step:
    """End with an answer, if the guards agree."""
    refused = guards.refusal(state, frame, form)
    if refused is not None:
        return refuse(state, frame, refused)
    match answer:
        case TextAnswer(text):
            return answered(state, frame, text)
        case VariableAnswer(name):
            return read_variable(state, evolve(frame, phase=Phase.READING), name)


def answered(state: RunState, frame: Frame, text: str, data: str | None = None) -> Step:
    """End with an answer that the guards agreed to; the root's is checked first, if it has a type.

    A frame that is closing stays so while it is checked.
    """
    if frame.id != ROOT or state.options.answer_schema is None:
        return frames.answer(state, frame, text)
    number = frame.checks + 1
    checking = Checking(call_id=check_id(frame.id, number), text=text, data=data)
    phase = frame.phase if frame.phase is Phase.CLOSING else Phase.CHECKING
    frame = evolve(frame, phase=phase, checks=number, checking=checking)
    return put(state, frame), (typed.check(frame, checking),)


def refuse(state: RunState, frame: Frame, refused: guards.Refusal) -> Step:
    """Derive a refusal; what the turn's cells showed is told with it."""
    shown = with_notice(frame).shown
    news = output(state.options.profile, shown) if shown else ""
    frame = evolve(frame, phase=Phase.ASKING, news=news, shown=(), answer=None, todo=())
    return trip(state, frame, refused)


def trip(state: RunState, frame: Frame, refused: guards.Refusal) -> Step:
    """Derive a refusal. A guard on steps trips once, and a value that was refused isn't judged
    again until it changes."""
    if refused.guard in guards.PRESSES:
        frame = evolve(frame, pressed=(*frame.pressed, refused.guard))
    if refused.guard in guards.OF_VALUES and frame.watched:
        frame = evolve(frame, refused_value=text_hash(frame.watched))
    event = GuardTripped(frame=frame.id, guard=refused.guard, reason=refused.reason)
    return put(state, frame), (Record(event=event),)


def with_news(frame: Frame, options: Options) -> Frame:
    """The frame whose next message shows what the turn's cells gave."""
    shown = with_notice(frame).shown
    news = result_message(options.profile, shown, frame.turns_used, frame.max_steps)
    return evolve(frame, news=news, shown=(), answer=None, todo=())


def with_notice(frame: Frame) -> Frame:
    """The frame whose last cell also shows what is to be said of the reply."""
    if not frame.notice or not frame.shown:
        return frame
    return _with_more(frame, "\n\n", frame.notice)


def _with_more(frame: Frame, between: str, said: str) -> Frame:
    return evolve(frame, shown=(*frame.shown[:-1], f"{frame.shown[-1]}{between}{said}"))


def notice(reply: Reply, repeats: int, options: Options) -> str:
    """What is said of a reply's code besides what it shows."""
    words, said = options.profile, list[str]()
    if reply.left_out:
        said.append(fill(words.not_run, which=words.blocks, count=reply.left_out))
    if options.loop_limit is not None and repeats > 1:
        said.append(fill(words.repeated, count=repeats))
    return "\n".join(said)


def read_variable(state: RunState, frame: Frame, name: str) -> Step:
    """Read the variable that an answer named."""
    reads = frame.reads + 1
    effect = ReadVariable(frame=frame.id, call_id=read_id(frame.id, reads), name=name)
    return put(state, evolve(frame, reads=reads, reading=name)), (effect,)
