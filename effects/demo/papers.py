"""The papers of an archive: letters, log pages, minutes, reports, diaries, invoices, telegrams.

A paper is a heading that names place and date, and paragraphs. What is planted is one more
paragraph among the others.
"""

from collections.abc import Callable
from dataclasses import dataclass

from effects.demo.grammar import Speaker
from effects.demo.numbers import written

KINDS = ("letter", "log", "minutes", "report", "diary", "invoice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """One document of the archive."""

    kind: str
    text: str


def write_paper(
    kind: str, speaker: Speaker, port: str, date: str, planted: tuple[str, ...] = ()
) -> Paper:
    """A paper of a kind, at a place, with a date (``1887-03-04``), around planted paragraphs."""
    paragraphs = _BODIES[kind](speaker)
    for paragraph in planted:
        paragraphs.insert(speaker.rng.randint(0, len(paragraphs)), paragraph)
    day = _heading_date(date, speaker)
    head, foot = _FRAMES[kind](speaker, port, day)
    return Paper(kind=kind, text="\n\n".join([head, *paragraphs, foot]))


def write_telegram(speaker: Speaker, port: str, date: str, message: str) -> Paper:
    """A telegram: a form, and the message in capitals with STOP for the full stops."""
    body = message.rstrip(".").replace(". ", " STOP ").upper() + " STOP"
    head = speaker.fill("TELEGRAM No. {100-9900}")
    head += f"\nReceived at {port}, {_heading_date(date, speaker)}"
    return Paper(kind="telegram", text=f"{head}\n\n{body}\n\nHanded in {speaker.fill('{hour}')}.")


def _heading_date(date: str, speaker: Speaker) -> str:
    return written(date, speaker.rng, with_year=True)


def _prose(kind: str, least: int, most: int) -> Callable[[Speaker], list[str]]:
    def body(speaker: Speaker) -> list[str]:
        return [speaker.paragraph(kind, 3, 6) for _ in range(speaker.rng.randint(least, most))]

    return body


def _numbered(kind: str) -> Callable[[Speaker], list[str]]:
    def body(speaker: Speaker) -> list[str]:
        count = speaker.rng.randint(4, 8)
        return [f"{number}. {speaker.paragraph(kind, 2, 4)}" for number in range(1, count + 1)]

    return body


def _log_body(speaker: Speaker) -> list[str]:
    lines = list[str]()
    for _ in range(speaker.rng.randint(4, 9)):
        text = speaker.paragraph("log", 1, 3)
        lines.append(text[:1].upper() + text[1:])
    return lines


def _invoice_body(speaker: Speaker) -> list[str]:
    lines, total = list[str](), 0
    for number in range(1, speaker.rng.randint(7, 16)):
        pounds, shillings = speaker.rng.randint(1, 90), speaker.rng.randint(0, 19)
        total += 20 * pounds + shillings
        goods = speaker.fill("{count} {container} {other_goods}")
        lines.append(f"{number:2}  {goods:44.44} {pounds:3}.{shillings:02}.0")
    sum_line = f"{'':4}{'Sum':44} {total // 20:3}.{total % 20:02}.0"
    return ["\n".join([*lines, sum_line]), speaker.paragraph("invoice", 2, 4)]


def _letter_frame(speaker: Speaker, port: str, day: str) -> tuple[str, str]:
    greeting = speaker.one(("Dear Sir", "Dear brother", "My dear Anne", "Sir", "Dear friend"))
    closing = speaker.one(("Yours truly", "Your obedient servant", "In haste", "Ever yours"))
    return f"{port}, {day}\n\n{greeting},", f"{closing},\n{speaker.fill('{Person}')}"


def _log_frame(speaker: Speaker, port: str, day: str) -> tuple[str, str]:
    return f"LOG of the harbour office\n{port}, {day}", speaker.fill("Watch relieved {hour}.")


def _minutes_frame(speaker: Speaker, port: str, day: str) -> tuple[str, str]:
    present = ", ".join(sorted({speaker.fill("{Person}") for _ in range(5)}))
    head = f"MINUTES of the harbour committee\n{port}, {day}\nPresent: {present}"
    return head, speaker.fill("The meeting rose {hour}.")


def _report_frame(speaker: Speaker, port: str, day: str) -> tuple[str, str]:
    head = f"REPORT to the board, No. {speaker.fill('{10-900}')}\n{port}, {day}"
    return head, speaker.fill("Signed: {person}, for the board.")


def _diary_frame(speaker: Speaker, port: str, day: str) -> tuple[str, str]:
    return f"DIARY\n{port}, {day}", speaker.fill("To bed {hour}.")


def _invoice_frame(speaker: Speaker, port: str, day: str) -> tuple[str, str]:
    head = speaker.fill("INVOICE No. {1000-9999} to {person}")
    return f"{head}\n{port}, {day}", speaker.fill("Errors excepted. {Person}.")


_BODIES: dict[str, Callable[[Speaker], list[str]]] = {
    "letter": _prose("letter", 3, 6),
    "log": _log_body,
    "minutes": _numbered("minutes"),
    "report": _numbered("report"),
    "diary": _prose("diary", 3, 7),
    "invoice": _invoice_body,
}
_FRAMES: dict[str, Callable[[Speaker, str, str], tuple[str, str]]] = {
    "letter": _letter_frame,
    "log": _log_frame,
    "minutes": _minutes_frame,
    "report": _report_frame,
    "diary": _diary_frame,
    "invoice": _invoice_frame,
}
