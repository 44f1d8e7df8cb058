"""The demonstration answers from the text: other seeds, other archives, other right answers."""

import json
import re
from pathlib import Path
from random import Random

import pytest

from effects.cli import main
from effects.demo import Haystack, is_right, make_haystack, root_model, sub_model
from effects.demo.model import read_paper
from effects.demo.numbers import date_of, in_words, number_of, spelled, written
from rlm_fsm import Context, run, runs

SMALL = 150_000
QUESTION = (
    "Does this paper report crates of blue slate, also called widow stone, as damaged on arrival "
    "at Tarn Haven in 1890? ...\n\nPAPER:\n"
)


def answered(haystack: Haystack, *, repl: str = "python") -> str:
    """The answer of a run over an archive."""
    context = Context.from_documents(haystack.documents, names=haystack.names)
    return run(
        haystack.question,
        context,
        adapter=root_model(is_fast=True),
        subcall_adapter=sub_model(is_fast=True),
        repl_backend=repl,
        log=":memory:",
    ).output


def read(body: str, head: str = "LOG of the harbour office\nTarn Haven, 2 May 1890") -> str:
    """What the sub-model says of a paper."""
    return read_paper([{"role": "user", "content": f"{QUESTION}{head}\n\n{body}\n\nThe end."}])


# The whole


@pytest.mark.parametrize("seed", [0, 2, 3, 5, 8])
def test_each_archive_has_its_answer_and_it_is_found(seed: int) -> None:
    haystack = make_haystack(seed, chars=SMALL)
    assert is_right(answered(haystack, repl="monty"), haystack)


def test_the_python_repl_finds_the_same_answer() -> None:
    haystack = make_haystack(2, chars=SMALL)
    assert answered(haystack) == answered(haystack, repl="monty")


def test_the_answer_changes_with_the_text() -> None:
    haystack = make_haystack(2, chars=SMALL)
    arrival = haystack.arrivals[0]
    without = [text for text in haystack.documents if arrival.ship.lower() not in text.lower()]
    names = haystack.names[: len(without)]
    changed = Haystack(
        documents=tuple(without),
        names=names,
        question=haystack.question,
        truth=haystack.truth,
        arrivals=haystack.arrivals,
    )
    assert not is_right(answered(changed), haystack)


def test_the_command_prints_the_answer_and_checks_it_against_the_planted_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.sqlite"
    options = ["--fast", "--size", "0.15", "--seed", "7", "--log", str(log)]
    assert main(["demo", *options]) == 0
    out, err = capsys.readouterr()
    truth = make_haystack(7, chars=SMALL).truth
    assert out.startswith(f"{truth} crates of ")
    assert "llm_batch: " in err
    assert f"rlm-fsm show {runs(log)[0].run_id} --log {log}" in err
    assert f"the planted truth is {truth} crates: the answer is right" in err
    assert main(["demo", *options, "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["output"].startswith(f"{truth} crates of ")
    assert err == ""


def test_a_demo_that_is_too_large_is_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--size", "5000"]) == 2
    assert "--size 5,000: give 200 or less" in capsys.readouterr().err


# The archive


def test_the_same_seed_makes_the_same_archive() -> None:
    assert make_haystack(4, chars=SMALL) == make_haystack(4, chars=SMALL)
    assert make_haystack(4, chars=SMALL).truth != make_haystack(5, chars=SMALL).truth


def test_the_archive_is_as_large_as_asked_and_varied() -> None:
    haystack = make_haystack(1)
    assert 3_000_000 <= haystack.chars < 3_100_000
    sentences = [s for d in haystack.documents for s in re.split(r"(?<=\.)\s+", d)]
    assert len(set(sentences)) > 0.7 * len(sentences)
    assert len(set(haystack.documents)) == len(haystack.documents)
    kinds = {name.partition("-")[2].removesuffix(".txt") for name in haystack.names}
    assert kinds >= {"letter", "log", "minutes", "report", "diary", "invoice"}


def test_the_goods_are_named_in_few_papers_only() -> None:
    haystack = make_haystack(1)
    goods = re.findall(r"crates of (.+?) arrived", haystack.question)[0]
    assert 10 < sum(goods in text.lower() for text in haystack.documents) < 50


# The sub-model


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        (
            "The brig Osprey came in on 4 March with our blue slate, and I am sorry to say that "
            "two dozen crates of it were broken past mending.",
            "DAMAGED | Osprey | 1890-03-04 | 24",
        ),
        (
            "The 4th of March. Discharged from the ketch Nine Sisters: 90 crates of widow stone, "
            "of which sixteen stove in by the shifting of the cargo.",
            "DAMAGED | Nine Sisters | 1890-03-04 | 16",
        ),
        (
            "STEAMER LADY ENID STOP ARRIVED THE 21ST OF MAY 1890 STOP FORTY-ONE CRATES BLUE SLATE "
            "SMASHED STOP REST SOUND STOP",
            "DAMAGED | Lady Enid | 1890-05-21 | 41",
        ),
        (
            "I must take back what I wrote of the brig Osprey and her arrival of 04.03.1890: the 7 "
            "crates of blue slate given as broken belonged to another house, and ours are whole.",
            "WITHDRAWN | Osprey | 1890-03-04",
        ),
        (
            "The brig Osprey brought 9 crates of blue slate on 4 March, not one of them was hurt.",
            "",
        ),
        ("4 March: 9 crates of green slate broken out of the brig Osprey.", ""),
        ("The brig Osprey landed 90 crates of blue slate on 4 March 1889; 9 were broken.", ""),
        (
            "The brig Osprey is looked for on 4 March with 90 crates of blue slate; should 9 of "
            "them be broken again, I shall change my carrier.",
            "",
        ),
        (
            "Word from Drayfield: the brig Osprey came in there on 4 March, and 9 crates of blue "
            "slate were broken.",
            "",
        ),
    ],
)
def test_the_sub_model_reads_a_paper(body: str, reply: str) -> None:
    assert read(body) == (reply or "NO_ANSWER")


def test_the_sub_model_reads_two_findings_in_one_paper() -> None:
    told = "The brig {} landed 90 crates of blue slate on 4 March; {} were broken."
    paper = f"{told.format('Osprey', 5)}\n\nNothing else.\n\n{told.format('Swale', 6)}"
    assert read(paper).splitlines() == [
        "DAMAGED | Osprey | 1890-03-04 | 5",
        "DAMAGED | Swale | 1890-03-04 | 6",
    ]


def test_a_paper_of_another_port_or_another_question_has_no_answer() -> None:
    told = "The brig Osprey landed 90 crates of blue slate on 4 March; 9 were broken."
    assert read(told, head="DIARY\nDrayfield, 2 May 1890") == "NO_ANSWER"
    assert read(told, head="DIARY\nTarn Haven, 2 May 1889") == "NO_ANSWER"
    assert read_paper([{"role": "user", "content": "What is 2 + 2?"}]) == "NO_ANSWER"


def test_numbers_and_dates_are_read_as_they_are_written() -> None:
    rng = Random(0)
    for number in range(1, 100):
        assert number_of(in_words(number)) == number
        assert all(number_of(spelled(number, rng)) == number for _ in range(5))
    for month in range(1, 13):
        for day in range(1, 29):
            iso = f"1890-{month:02}-{day:02}"
            assert date_of(written(iso, rng, with_year=True), 1800) == iso
            assert date_of(written(iso, rng, with_year=False), 1890) == iso
    assert number_of("a few") is None
    assert date_of("no date here", 1890) is None
