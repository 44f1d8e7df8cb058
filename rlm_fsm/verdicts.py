"""What becomes of a reply and of a cell's end: code is run, an answer is judged, a frame gives up.

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
from rlm_fsm.state import Cell, Checking, Frame, Phase, RunState
from rlm_fsm.values import FinalForm, GivenFinal
from rlm_fsm.wording import output, result_message


def run_next(state: RunState, frame: Frame, blocks: tuple[str, ...]) -> Step:
    """Run the next block of the newest reply as a cell of its own."""
    code, todo = blocks[0], blocks[1:]
    number = frame.cells + 1
    cell = Cell(id=cell_id(frame.id, number), code=code)
    running = evolve(frame, phase=Phase.RUNNING, cell=cell, cells=number, todo=todo)
    return put(state, running), (frames.run_effect(state, running),)


def given(state: RunState, frame: Frame, final: GivenFinal) -> Step:
    """End with an answer that code gave, if it says anything and the guards agree."""
    if not final.text.strip():
        return refuse(state, frame, guards.empty_answer(state.options.profile))
    return conclude(state, frame, TextAnswer(final.text), final.form, final.data)


def conclude(
    state: RunState, frame: Frame, answer: Answer, form: FinalForm, data: str | None = None
) -> Step:
    """End with an answer, if the guards agree. `data` is its value, where code gave one."""
    refused = guards.refusal(frame, state.options, form)
    if refused is not None:
        return refuse(state, frame, refused)
    match answer:
        case TextAnswer(text):
            return answered(state, frame, text, data)
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
    news = output(state.options.profile, frame.shown) if frame.shown else ""
    frame = evolve(frame, phase=Phase.ASKING, news=news, shown=(), answer=None, todo=())
    event = GuardTripped(frame=frame.id, guard=refused.guard, reason=refused.reason)
    return put(state, frame), (Record(event=event),)


def give_up(state: RunState, frame: Frame, error: str) -> Step:
    """Run the fallback code, once and in the root only; without any, the frame fails."""
    code = state.options.fallback_code
    if code is None or frame.id != ROOT or frame.stalled:
        return frames.fail(state, frame, error, "guard")
    return run_next(state, evolve(frame, stalled=error, answer=None, shown=()), (code,))


def fallen_back(state: RunState, frame: Frame, event: CodeExecuted) -> Step:
    """The fallback code has run: its answer is the run's, guards or not; without one it fails."""
    if event.error is not None:
        error = f"{frame.stalled}; then the fallback code raised: {event.error}"
        return frames.fail(state, frame, error, "guard")
    text = event.final.text if event.final else event.watched.get(frames.watched(state.options), "")
    if text.strip():
        return answered(state, frame, text, event.final.data if event.final else None)
    return frames.fail(state, frame, f"{frame.stalled}; the fallback code gave no answer", "guard")


def with_news(frame: Frame, options: Options) -> Frame:
    """The frame whose next message shows what the turn's cells gave."""
    shown = frame.shown
    if frame.notice:
        shown = (*shown[:-1], f"{shown[-1]}\n\n{frame.notice}")
    news = result_message(options.profile, shown, frame.turns_used, frame.max_steps)
    return evolve(frame, news=news, shown=(), answer=None, todo=())


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
