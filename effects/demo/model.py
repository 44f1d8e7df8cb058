"""The scripted model of the demonstration: a root that writes code, and a sub-model that reads.

Neither knows the answer. The root's turns are functions of the conversation: they take the goods,
the port and the year from the question, and the goods' second name from what its code printed.
The sub-model reads one paper by rules and says what it found, as a small model would.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import dedent

from effects.adapters.fake import FakeAdapter, FakeRule
from effects.demo.numbers import NUMBER, date_of, number_of
from rlm_fsm.values import Messages

ROOT_DELAY_S = 0.7
"""How long a turn of the root takes."""
READING_DELAYS_S = {"TELEGRAM": 0.15, "DIARY": 0.5, "INVOICE": 0.25, "MINUTES": 0.6, "": 0.35}
"""How long a paper takes to be read, by its first word; the empty one stands for the others."""

_QUESTION = re.compile(r"How many crates of (.+?) arrived damaged at (.+?) in (\d{4})\?")
_TRADE_NAME = re.compile(r"is entered by the chandlers as ([a-z ]+)")
_ASKED = re.compile(r"of (.+?), also called (.+?), as damaged on arrival at (.+?) in (\d{4})")

_COUNTS = (
    re.compile(
        rf"\b({NUMBER})(?: crates)?(?: of it| [a-z]+ [a-z]+)??(?: (?:were|had been|proved to be))?"
        r" (?:broken|smashed|cracked|spoiled|stove in)\b",
        re.IGNORECASE,
    ),
    re.compile(rf"\bcounted ({NUMBER}) as crushed", re.IGNORECASE),
    re.compile(rf"\b({NUMBER}) of the crates of [a-z ]+? had gone to pieces", re.IGNORECASE),
    re.compile(rf"\bcrates lost: ({NUMBER})", re.IGNORECASE),
)
"""Ways in which a paper says how many crates were damaged."""
_SHIP = re.compile(
    r"\b(?:brig|barque|steamer|schooner|ketch|cutter) ((?:[A-Z][a-z]+)(?: [A-Z][a-z]+)*)",
    re.IGNORECASE,
)
_PROPER = re.compile(r"[A-Z][a-z]+(?: [A-Z][a-z]+)*")
_TAKEN_BACK = re.compile(r"\btake back\b|\bis withdrawn\b", re.IGNORECASE)
_ELSEWHERE = re.compile(r"\bword from ([A-Z][a-z]+(?: [A-Z][a-z]+)*)", re.IGNORECASE)
_NOT_YET = re.compile(r"\bis looked for\b|\bis expected\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the sub-model is asked about."""

    goods: str
    alias: str
    port: str
    year: int


def root_model(*, is_fast: bool) -> FakeAdapter:
    """The model of the root's turns."""
    turns = (_look, _search, _narrow, _ask, _combine, _finish)
    return FakeAdapter(list(turns), model="demo-large", delay_s=0.0 if is_fast else ROOT_DELAY_S)


def sub_model(*, is_fast: bool) -> FakeAdapter:
    """The model that reads one paper per call."""
    rules = [
        FakeRule(
            f"PAPER:\n{first_word}" if first_word else "PAPER:",
            read_paper,
            delay_s=0.0 if is_fast else delay_s,
        )
        for first_word, delay_s in READING_DELAYS_S.items()
    ]
    return FakeAdapter(rules=rules, model="demo-small")


def read_paper(messages: Messages) -> str:
    """What a sub-model answers: a line per finding, or NO_ANSWER."""
    question, _, paper = messages[-1]["content"].partition("PAPER:\n")
    found = _ASKED.search(question)
    if found is None:
        return "NO_ANSWER"
    asked = Asked(found[1], found[2], found[3], int(found[4]))
    findings = [finding for part in _passages(paper, asked) if (finding := _finding(part, asked))]
    return "\n".join(findings) or "NO_ANSWER"


def _passages(paper: str, asked: Asked) -> Sequence[str]:
    """The paragraphs that name the goods, each after the paper's place and date."""
    head, _, body = paper.partition("\n\n")
    place_and_date = re.search(rf"{re.escape(asked.port)}, .*?\b(\d{{4}})\b", head)
    if place_and_date is None:
        return ()
    written = place_and_date[1]
    named = [part for part in body.split("\n\n") if _names_goods(part, asked)]
    return [f"{written}\n{part}" for part in named]


def _names_goods(text: str, asked: Asked) -> bool:
    lower = text.lower()
    return asked.goods in lower or asked.alias in lower


def _finding(passage: str, asked: Asked) -> str | None:
    """What a passage says of one arrival, as a line; None when it isn't what was asked for."""
    written, _, text = passage.partition("\n")
    if text.isupper():  # a telegram
        text = text.replace(" STOP", ".").title()
    ship, date = _ship(text), date_of(text, int(written))
    if ship is None or date is None or not date.startswith(str(asked.year)):
        return None
    if _NOT_YET.search(text) or _ELSEWHERE.search(text):
        return None
    if _TAKEN_BACK.search(text):
        return f"WITHDRAWN | {ship} | {date}"
    count = next((number_of(m[1]) for way in _COUNTS if (m := way.search(text))), None)
    return f"DAMAGED | {ship} | {date} | {count}" if count else None


def _ship(text: str) -> str | None:
    found = _SHIP.search(text)
    name = _PROPER.match(found[1]) if found else None
    return name[0] if name else None


# -- the root's turns ------------------------------------------------------------------------------


def _task(messages: Messages) -> tuple[str, str, str]:
    """Goods, port and year, from the question."""
    found = _QUESTION.search(messages[1]["content"])
    return (found[1], found[2], found[3]) if found else ("goods", "the port", "that year")


def _reply(thought: str, code: str) -> str:
    return f"{thought}\n\n```python\n{dedent(code).strip()}\n```"


def _look(_: Messages) -> str:
    return _reply(
        "I have not seen the text yet, so I look at its shape and at a few samples first.",
        """
        lengths = ctx.document_lengths()
        print(f"{lenP():,} characters in {len(lengths):,} documents")
        print(f"shortest {min(lengths):,}, longest {max(lengths):,}")
        for i in range(0, len(lengths), len(lengths) // 4 + 1):
            print(f"--- document {i}")
            print(ctx.get_document(i)[:180])
        """,
    )


def _search(messages: Messages) -> str:
    goods, _, _ = _task(messages)
    return _reply(
        "Old papers of many kinds. Where are the goods named, and do they go by another name?",
        f"""
        goods = {goods!r}
        hits = ctx.find(goods, max_matches=None, case_sensitive=False)
        print(f"{{len(hits)}} places name {{goods}}")
        for start, end, _ in hits[:6]:
            print("...", ctx.slice(start - 60, end + 60).replace("\\n", " "))
        other = goods + r" is (?:entered|known|called)[^.]*"
        for start, end, text in ctx.find(other, regex=True):
            print("other name?", text)
        """,
    )


def _narrow(messages: Messages) -> str:
    goods, port, _ = _task(messages)
    found = _TRADE_NAME.search(messages[-1]["content"])
    names = [goods, found[1].strip()] if found else [goods]
    thought = (
        f"The chandlers call it {names[1]}, so I need both names."
        if found
        else "There is no other name, so this one has to do."
    )
    return _reply(
        f"{thought} I keep the papers that name the goods and the port.",
        f"""
        names = {names!r}
        papers = []
        for i in range(ctx.num_documents()):
            paper = ctx.get_document(i)
            lower = paper.lower()
            if {port!r} in paper and any(n in lower for n in names):
                papers.append(paper)
        print(len(papers), "papers,", sum(map(len, papers)), "characters")
        """,
    )


def _ask(messages: Messages) -> str:
    goods, port, year = _task(messages)
    return _reply(
        "Each is worded in its own way: that is reading, not matching. A sub-model reads each one.",
        f"""
        question = (
            "Does this paper report crates of {goods}, also called "
            + names[-1] + ", as damaged on arrival at {port} in {year}? "
            "Answer with a line for each ship: "
            "DAMAGED | ship | YYYY-MM-DD | crates. For a report that is "
            "taken back: WITHDRAWN | ship | YYYY-MM-DD. "
            "If there is nothing of the kind: NO_ANSWER"
        )
        prompts = [question + "\\n\\nPAPER:\\n" + paper for paper in papers]
        replies = llm_batch(prompts)
        telling = [reply for reply in replies if reply != "NO_ANSWER"]
        print(f"{{len(telling)}} of {{len(replies)}} papers tell of damage")
        for reply in telling[:10]:
            print(reply)
        """,
    )


def _combine(messages: Messages) -> str:
    goods, _, _ = _task(messages)
    return _reply(
        "Now counting, which is for code: each arrival once, without those that were taken back.",
        f"""
        damaged, withdrawn = {{}}, set()
        for reply in replies:
            for line in reply.splitlines():
                parts = [part.strip() for part in line.split("|")]
                if parts[0] == "DAMAGED":
                    damaged[(parts[1], parts[2])] = int(parts[3])
                elif parts[0] == "WITHDRAWN":
                    withdrawn.add((parts[1], parts[2]))
        counted = {{key: n for key, n in damaged.items() if key not in withdrawn}}
        for key in sorted(counted, key=lambda key: key[1]):
            print(key[1], key[0], counted[key])
        print("taken back:", sorted(withdrawn))
        total = sum(counted.values())
        answer = f"{{total}} crates of {goods}, in {{len(counted)}} arrivals"
        print(answer)
        """,
    )


def _finish(_: Messages) -> str:
    return "The counts are in, each arrival once.\n\nFINAL_VAR: answer"
