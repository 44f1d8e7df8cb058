"""An archive of a few megabytes, a question about it, and the planted truth.

The question counts crates that arrived damaged at one port in one year. To answer it, a reader

1. must learn that the goods go by a second name, which stands in one paper;
2. must find the arrivals, each told in other words, in papers of several kinds;
3. must count an arrival once that two papers tell of;
4. must leave out arrivals that another paper takes back;
5. must pass over decoys: other ports, other years, sound arrivals, mere expectations.
"""

from dataclasses import dataclass
from random import Random

from effects.demo.grammar import Speaker
from effects.demo.numbers import spelled, written
from effects.demo.papers import KINDS, Paper, write_paper, write_telegram
from effects.demo.words import GOODS, PORTS, SHIP_KINDS, SHIPS

_DAMAGED = (
    "The {kind} {ship} came in on {day} with our {goods}, and I am sorry to say that {n} crates of "
    "it were broken past mending.",
    "{Day}. Discharged from the {kind} {ship}: {total} crates of {goods}, of which {n} stove in "
    "by the shifting of the cargo.",
    "On {day} the {kind} {ship} landed {total} crates of {goods}; when they were opened, {n} "
    "proved to be spoiled by sea water.",
    "It was laid before us that out of {total} crates of {goods} brought by the {kind} {ship} "
    "on {day}, the wharfinger had counted {n} as crushed.",
    "Went down on {day} to see the {kind} {ship} unloaded. What a sight: {n} of the crates of "
    "{goods} had gone to pieces in the hold.",
    "Claim for damage at sea. Vessel: {kind} {ship}. Arrived: {day}. Goods: {goods}. Crates "
    "landed: {total}. Crates lost: {n}.",
    "Allowance on {n} crates {goods} cracked in the hold of the {kind} {ship}, landed {day}.",
)
_TELEGRAM = "{kind} {ship}. arrived {day}. {n} crates {goods} smashed. rest sound"
_TAKEN_BACK = (
    "I must take back what I wrote of the {kind} {ship} and her arrival of {day}: the {n} crates "
    "of {goods} given as broken belonged to another house, and ours are whole.",
    "Correction. The entry for the {kind} {ship}, {day}, of {n} crates of {goods} broken, is "
    "withdrawn; the clerk had mistaken the mark.",
)
_SOUND = (
    "The {kind} {ship} brought {total} crates of {goods} on {day}, and not one of them was hurt.",
    "{Day}: {total} crates of {goods} out of the {kind} {ship}, all sound.",
)
_EXPECTED = (
    "The {kind} {ship} is looked for on {day} with {total} crates of {goods}; should {n} of them "
    "be broken again, I shall change my carrier.",
)
_ELSEWHERE = (
    "Word from {elsewhere}: the {kind} {ship} came in there on {day}, and {n} crates of {goods} "
    "were broken.",
)
_MENTIONS = (
    "{Goods} stands at {12-40} shillings the crate, and {person} will not take less.",
    "{Person} asks for {goods} in place of {other_goods}, which no one here will sell him.",
    "There is {goods} enough in {place} to last till the spring.",
)
_TRADE_NAME = (
    "Trade names in use on the quays, for the guidance of clerks: {goods} is entered by the "
    "chandlers as {alias}. The two are one and the same."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A ship that came in with the goods."""

    ship: str
    kind: str
    date: str
    damaged: int
    """Crates, of `total`."""
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Haystack:
    """The archive and what is asked about it."""

    documents: tuple[str, ...]
    names: tuple[str, ...]
    """One for each document."""
    question: str
    truth: int
    """The right answer: crates."""
    arrivals: tuple[Arrival, ...]
    """The arrivals that count."""

    @property
    def chars(self) -> int:
        """Length of all documents together."""
        return sum(map(len, self.documents))


def make_haystack(seed: int = 1, *, chars: int = 3_000_000) -> Haystack:
    """The archive of a seed, at least `chars` characters long. Same seed, same archive."""
    rng = Random(f"rlm-fsm demo {seed}")
    planter = _Planter(rng)
    planted = planter.papers()
    size = sum(len(paper.text) for paper in planted)
    others = list[Paper]()
    while size < chars:
        others.append(planter.any_paper())
        size += len(others[-1].text)
    papers = others + planted
    rng.shuffle(papers)
    return Haystack(
        documents=tuple(paper.text for paper in papers),
        names=tuple(f"{number:05}-{paper.kind}.txt" for number, paper in enumerate(papers, 1)),
        question=(
            f"How many crates of {planter.goods} arrived damaged at {planter.port} in "
            f"{planter.year}? Count each arrival once, whatever the goods are called, and leave "
            "out reports that were taken back."
        ),
        truth=sum(arrival.damaged for arrival in planter.arrivals),
        arrivals=tuple(planter.arrivals),
    )


class _Planter:
    """Chooses what is asked, and writes the papers that matter."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.speaker = Speaker(rng)
        self.goods, self.alias = rng.choice(GOODS)
        self.port = rng.choice(PORTS)
        self.year = rng.randint(1871, 1896)
        self._taken: set[tuple[str, str]] = set()
        self.arrivals = [self._arrival() for _ in range(rng.randint(9, 12))]

    def papers(self) -> list[Paper]:
        """All papers that name the goods."""
        rng = self.rng
        papers = [self._tell(arrival) for arrival in self.arrivals]
        papers += [self._tell(arrival) for arrival in rng.sample(self.arrivals, 3)]
        for _ in range(2):
            mistaken = self._arrival()
            papers += [self._tell(mistaken), self._about(mistaken, _TAKEN_BACK)]
        papers += [self._about(self._arrival(), _SOUND) for _ in range(5)]
        papers += [self._about(self._arrival(), _EXPECTED) for _ in range(2)]
        papers += [self._about(self._arrival(), _ELSEWHERE) for _ in range(3)]
        papers += [
            self._about(self._arrival(), _DAMAGED, port=self._other_port()) for _ in range(4)
        ]
        for other_year in (self.year - 2, self.year - 1, self.year + 1):
            papers.append(self._about(self._arrival(other_year), _DAMAGED))
        papers += [self._paper(self._named(pattern), self.port) for pattern in _MENTIONS]
        trade_name = _TRADE_NAME.format(goods=self.goods, alias=self.alias)
        papers.append(self._paper(trade_name, self.port, kind="report"))
        return papers

    def any_paper(self) -> Paper:
        """A paper that has nothing to do with the question."""
        year = self.year + self.rng.randint(-4, 4)
        kind = KINDS[int(self.rng.random() * len(KINDS))]
        port = self.port if self.rng.random() < 0.3 else self.rng.choice(PORTS)
        return write_paper(kind, self.speaker, port, self._date(year))

    def _tell(self, arrival: Arrival) -> Paper:
        """A paper of the port that reports an arrival with damage, now and then a telegram."""
        if self.rng.random() < 0.2:
            words = self._worded(_TELEGRAM, arrival, with_year=True)
            return write_telegram(self.speaker, self.port, arrival.date, words)
        return self._about(arrival, _DAMAGED)

    def _about(self, arrival: Arrival, ways: tuple[str, ...], port: str | None = None) -> Paper:
        year = int(arrival.date[:4])
        with_year = self.rng.random() < 0.5
        words = self._worded(self.rng.choice(ways), arrival, with_year=with_year)
        date = max(self._date(year), arrival.date)  # written when it had happened, that year
        return self._paper(words, port or self.port, date=date)

    def _worded(self, pattern: str, arrival: Arrival, *, with_year: bool) -> str:
        day = written(arrival.date, self.rng, with_year=with_year)
        goods = self.rng.choice((self.goods, self.alias))
        return pattern.format(
            kind=arrival.kind,
            ship=arrival.ship,
            day=day,
            Day=day[:1].upper() + day[1:],
            n=spelled(arrival.damaged, self.rng),
            total=arrival.total,
            goods=goods,
            elsewhere=self._other_port(),
        )

    def _named(self, pattern: str) -> str:
        name = self.rng.choice((self.goods, self.alias))
        raised = name[:1].upper() + name[1:]
        return self.speaker.fill(pattern.replace("{goods}", name).replace("{Goods}", raised))

    def _paper(
        self, words: str, port: str, *, kind: str | None = None, date: str | None = None
    ) -> Paper:
        kind = kind or self.rng.choice(KINDS)
        return write_paper(kind, self.speaker, port, date or self._date(self.year), (words,))

    def _arrival(self, year: int | None = None) -> Arrival:
        """An arrival; no other has its ship and date."""
        while True:
            ship, date = self.rng.choice(SHIPS), self._date(year or self.year)
            if (ship, date) not in self._taken:
                break
        self._taken.add((ship, date))
        damaged = self.rng.randint(3, 48)
        return Arrival(
            ship=ship,
            kind=self.rng.choice(SHIP_KINDS),
            date=date,
            damaged=damaged,
            total=damaged + self.rng.randint(8, 70),
        )

    def _other_port(self) -> str:
        return self.rng.choice([port for port in PORTS if port != self.port])

    def _date(self, year: int) -> str:
        return f"{year}-{self.rng.randint(1, 12):02}-{self.rng.randint(1, 28):02}"
