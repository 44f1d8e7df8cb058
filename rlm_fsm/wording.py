"""What a model is told, in the words of a profile: the messages after the system prompt.

Numbers are written with commas. What a cell showed is `shown`'s.
"""

from collections.abc import Sequence

from rlm_fsm.profile import Profile, fill
from rlm_fsm.values import ContextInfo


def first_message(profile: Profile, query: str, context: ContextInfo, max_steps: int) -> str:
    """The task: the question and the shape of the context."""
    several = context.kind == "document_list" and context.documents != 1
    return fill(
        profile.first_documents if several else profile.first_text,
        query=query,
        kind="list" if context.kind == "document_list" else "str",
        chars=f"{context.chars:,}",
        documents=f"{context.documents:,}",
        lengths=_lengths(context),
        turns=max_steps,
    )


def result_message(profile: Profile, shown: Sequence[str], taken: int, max_steps: int) -> str:
    """What the model is told after its code ran, with `taken` turns behind it."""
    return f"{output(profile, shown)}\n\n{next_action(profile, taken, max_steps)}"


def refusal_message(profile: Profile, reason: str, taken: int, max_steps: int) -> str:
    """What the model is told when its reply was refused."""
    return f"{reason}\n\n{next_action(profile, taken, max_steps)}"


def output(profile: Profile, shown: Sequence[str]) -> str:
    """What the cells of a turn showed, under its heading."""
    if len(shown) > 1:
        shown = [
            fill(profile.block_shown, number=number, output=part)
            for number, part in enumerate(shown, 1)
        ]
    return fill(profile.shown, output="\n\n".join(shown))


def next_action(profile: Profile, taken: int, max_steps: int) -> str:
    """The end of a message: how many turns are left."""
    left = max_steps - taken
    said = profile.turn_left if left == 1 else fill(profile.turns_left, count=left)
    return fill(profile.next_action, left=said, turn=min(taken + 1, max_steps), turns=max_steps)


def closing_message(profile: Profile, limit: str) -> str:
    """What the model is told when a limit leaves it one reply."""
    return fill(profile.closing, limit=limit)


def forms(profile: Profile) -> str:
    """What a reply should look like."""
    return fill(profile.forms, fence=profile.fences[0])


def _lengths(context: ContextInfo) -> str:
    """The documents' lengths; of many, the first and the last ones."""
    lengths = [f"{n:,}" for n in context.lengths]
    if context.documents > len(lengths):
        half = len(lengths) // 2
        return f"{', '.join(lengths[:half])}, ..., {', '.join(lengths[half:])}"
    return ", ".join(lengths)
