"""How `classify_all` and `vote` read labels: signs and symbols, lines, numbers, punctuation."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effects.repls._combinators import _tally  # pyright: ignore[reportPrivateUsage]
from effects.repls._labels import label_in, labels_of, labels_read

SIGNS = ["-1", "0", "1"]


@pytest.mark.parametrize(
    ("labels", "reply", "expected"),
    [
        (SIGNS, "1: 1\n2: -1\n3: 0", ["1", "-1", "0"]),
        (SIGNS, "1 -1\n2 - 1\n3 - -1", ["-1", "1", "-1"]),
        (SIGNS, "**1:** -1\n**2**: `-1`\n- 3) the label is -1.", ["-1", "-1", "-1"]),
        (["0", "1"], "1: -1\n2: 1.5\n3: it is 1", [None, None, "1"]),
        (["<5", ">5", "5"], "1: <5\n2: >5\n3. 5", ["<5", ">5", "5"]),
        (["<5", ">5", "5"], "1 -> <5\n(2) >5\n[3]: 5", ["<5", ">5", "5"]),
        (["#a", "a"], "1: #a\n2: a\n3: A", ["#a", "a", "a"]),
        (["+", "-"], "1: +\n2: -\n3 - +", ["+", "-", "+"]),
        (["+", "-"], "| # | label |\n|---|---|\n| 1 | + |\n| 2 | - |", ["+", "-", None]),
        (["👍", "👎"], "1: 👍\n2: 👎\n3 👍", ["👍", "👎", "👍"]),
        (["$10", "$20"], "1: $10\n2: $20\n3: it costs $10.", ["$10", "$20", "$10"]),
        ([":)", ":("], "1: :)\n2 :(\n3:", [":)", ":(", None]),
        (["1.5", "1"], "1: 1.5\n2: 1\n3. 1.5", ["1.5", "1", "1.5"]),
        (["spam", "ham"], "1:\n2: ham\n3: spam", [None, "ham", "spam"]),
        (["spam", "ham"], "1:\nspam\n**2**\nHam.\n3\n\n", ["spam", "ham", None]),
        (["spam", "ham"], "1 - spam\r\n2 – ham\r\n3 = spam", ["spam", "ham", "spam"]),
        (["spam", "ham"], "9" * 5_000 + ": spam\n2: ham", [None, "ham", None]),
        (["spam", "ham"], "1.5: spam\n2nd: ham\n_3_: ham", [None, None, "ham"]),
        (["spam", "ham"], "１: Spam\n2: HAM\n3: no idea", ["spam", "ham", None]),
        (["2020", "2021"], "1: 2020-2021\n2: in 2021.\n3: in ~2020", [None, "2021", None]),
        (["?", "ok"], "1: ?\n2: .\n3: ok?", ["?", None, "ok"]),
    ],
)
def test_each_item_gets_the_label_on_its_own_line(
    labels: list[str], reply: str, expected: list[str | None]
) -> None:
    found = labels_read(reply, ["a", "b", "c"], labels)
    assert [found.get(item) for item in ("a", "b", "c")] == expected


@pytest.mark.parametrize(
    ("reply", "labels", "expected"),
    [
        ("-1", SIGNS, "-1"),
        ("1.", SIGNS, "1"),
        ("1.5", ["1.5", "1"], "1.5"),
        ("1: -2", ["1", "2"], None),
        ("2", ["1", "2"], "2"),
        ("7: spam", ["spam", "ham"], "spam"),
        ("It is spam", ["spam", "ham"], "spam"),
    ],
)
def test_a_reply_about_one_item_may_be_its_label_alone(
    reply: str, labels: list[str], expected: str | None
) -> None:
    assert labels_read(reply, ["a"], labels).get("a") == expected


@pytest.mark.parametrize(
    ("reply", "labels", "expected"),
    [
        ("**1**: Spam.", ["spam", "not spam"], "spam"),
        ("1. not spam", ["spam", "not spam"], "not spam"),
        ("1) The label is spam, I think", ["spam", "ham"], "spam"),
        ("1: spam or ham", ["spam", "ham"], None),
        ("1: spamming", ["spam", "ham"], None),
        ("spam", ["spam", "ham"], "spam"),
        ("7: spam", ["spam", "ham"], "spam"),
        ("1: spam\n1: ham", ["spam", "ham"], "spam"),
        ("", ["spam", "ham"], None),
        ("1: us", ["US", "us"], "us"),
        ("1: **us**.", ["US", "us"], "us"),
        ("1: Us", ["US", "us"], None),
        ("1: it is us, I think", ["US", "us"], "us"),
        ("1: it is Us, I think", ["US", "us"], None),
        ("1: US or us", ["US", "us"], None),
        ("1: spam or ham", ["spam", "Ham"], None),
        ("1: Not Spam", ["Spam", "not spam"], "not spam"),
        ("1: f()", ["f", "f()"], "f()"),
    ],
)
def test_labels_are_read_from_what_models_write(
    reply: str, labels: list[str], expected: str | None
) -> None:
    assert labels_read(reply, ["an item"], labels).get("an item") == expected


def test_replies_that_are_punctuation_are_different_votes() -> None:
    assert _tally(["(", ")", ")", "a.", "A"], None) == [(")", 2), ("a.", 2), ("(", 1)]
    assert label_in("(", ["(", ")"]) == "("
    assert label_in("...", ["(", "ok"]) is None


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5), st.data())
def test_a_label_of_any_signs_is_read_where_it_is_written(labels: list[str], data: Any) -> None:
    known = labels_of(labels)
    picked = data.draw(st.lists(st.sampled_from(list(known)), min_size=1, max_size=4))
    items = [f"i{place}" for place in range(len(picked))]
    reply = "\n".join(f"{number}: {label}" for number, label in enumerate(picked, 1))
    assert labels_read(reply, items, list(known)) == dict(zip(items, picked, strict=True))
