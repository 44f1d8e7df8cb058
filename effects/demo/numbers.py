"""Numbers and dates as people write them, and back: 24, twenty-four, two dozen; 4 March, March 4th.

The archive is written with these, and the scripted sub-model reads with them.
"""

import re
from random import Random

from effects.demo.words import MONTHS

_ONES = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_MONTH = "|".join(MONTHS)
_DAY = r"(?P<d>\d{1,2})(?!\d)(?:st|nd|rd|th)?"
_YEAR = r"(?:,? (?P<y>\d{4}))?"
_DATES = (
    re.compile(rf"\b{_DAY}(?: of)? (?P<m>{_MONTH}){_YEAR}"),
    re.compile(rf"\b(?P<m>{_MONTH}) {_DAY}{_YEAR}"),
    re.compile(r"\b(?P<d>\d{2})\.(?P<m>\d{2})\.(?P<y>\d{4})"),
)

NUMBER = (
    rf"(?:\d+|(?:a|two|three|four) dozen|(?:{'|'.join(_TENS)})(?:-(?:{'|'.join(_ONES[1:10])}))?"
    rf"|{'|'.join(_ONES[1:])})\b"
)
"""A regular expression for the numbers that `spelled` writes."""


def in_words(number: int) -> str:
    """A number below 100 in words."""
    if number < 20:
        return _ONES[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_ONES[ones]}" if ones else "")


def spelled(number: int, rng: Random) -> str:
    """A number below 100 in one of the ways in which it is written."""
    dozens = {12: "a dozen", 24: "two dozen", 36: "three dozen", 48: "four dozen"}
    ways = [str(number), in_words(number), *([dozens[number]] if number in dozens else [])]
    return rng.choice(ways)


def number_of(text: str) -> int | None:
    """The number that a text means, as `spelled` writes them; None for anything else."""
    text = text.lower()
    if text.isdigit():
        return int(text)
    if text in _ONES:
        return _ONES.index(text)
    if text.endswith(" dozen"):
        return 12 * (("a", "two", "three", "four").index(text.removesuffix(" dozen")) + 1)
    tens, _, ones = text.partition("-")
    if tens not in _TENS:
        return None
    return 10 * (_TENS.index(tens) + 2) + (_ONES.index(ones) if ones else 0)


def written(iso: str, rng: Random, *, with_year: bool) -> str:
    """A date (``1887-03-04``) in one of the ways in which it is written."""
    year, month, day = (int(part) for part in iso.split("-"))
    name, nth = MONTHS[month - 1], _ordinal(day)
    if not with_year:
        return rng.choice((f"{day} {name}", f"the {nth} of {name}", f"{name} {nth}"))
    dotted = f"{day:02}.{month:02}.{year}"
    ways = (f"{day} {name} {year}", f"the {nth} of {name} {year}", f"{name} {nth}, {year}", dotted)
    return rng.choice(ways)


def date_of(text: str, year: int) -> str | None:
    """The first date in a text as ``1887-03-04``; `year` is meant where none is written."""
    text = re.sub(r"(?<=\d)(St|Nd|Rd|Th)\b|\bOf\b", lambda found: found[0].lower(), text)
    for pattern in _DATES:
        if found := pattern.search(text):
            month = found["m"]
            number = int(month) if month.isdigit() else MONTHS.index(month) + 1
            return f"{int(found['y'] or year)}-{number:02}-{int(found['d']):02}"
    return None


def _ordinal(day: int) -> str:
    ending = "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{ending}"
