"""`map_chunks`, `reduce_tree`, `classify_all`, `vote`: what is left where subcalls fail, and
arguments in other forms."""

import pytest
from combinator_host import Host, joined, labelled, voting

from effects.repls._functions import SubcallError


def test_failed_chunks_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    host = Host(lambda prompt: "!gone" if prompt.endswith("b") else "ok")
    host.run("map_chunks", "q", ["a", "b"], on_error="return")
    assert capsys.readouterr().out.splitlines()[1:] == ["map_chunks: 1 of 2 subcalls failed: gone"]


def test_question_and_texts_may_change_places() -> None:
    host = Host()
    assert host.run("map_chunks", ["a"], "q") == ["ok"]
    assert host.run("reduce_tree", "q", ["a"]) == "ok"
    assert [level[0].startswith("Question: q\n") for level in host.levels] == [True, True]
    assert host.levels[1][0].endswith("\n\n[1]\na")


def test_what_a_failed_tree_has_put_together_is_not_lost() -> None:
    down = {"c+d"}

    def rule(prompt: str) -> str:
        return "!down" if joined(prompt) in down else joined(prompt).replace("+", "")

    host = Host(rule)
    with pytest.raises(SubcallError, match="reduce_tree can go on with it") as first:
        host.run("reduce_tree", list("abcd"), "q", 2)
    assert first.value.results == ["ab", "c", "d"]
    down.clear()
    down.add("ab+cd")
    with pytest.raises(SubcallError, match="1 of 1 subcall failed: down") as second:
        host.run("reduce_tree", list("abcd"), "q", 2)
    assert second.value.results == ["ab", "cd"]
    down.clear()
    assert host.run("reduce_tree", second.value.results, "q", 2) == "abcd"


def test_the_error_of_a_classification_carries_the_labels_that_were_given() -> None:
    host = Host(lambda prompt: "!down" if "a0\n" in prompt else labelled(prompt))
    with pytest.raises(SubcallError, match="1 of 2 subcalls failed: down") as caught:
        host.run("classify_all", [f"a{n}" for n in range(25)], ["odd", "even"])
    assert caught.value.results == [None] * 20 + ["even"] * 5


def test_labels_are_given_back_as_code_wrote_them() -> None:
    host = Host(lambda prompt: "1: two words\n2: odd\n3: none")
    labels = [" odd", "two\n words"]
    assert host.run("classify_all", ["a", "b", "c"], labels) == ["two\n words", " odd", None]
    assert "- odd\n- two words\n" in host.levels[0][0]
    assert voting("yes", "yes", "no").run("vote", "?", n=3, choices=["no", "yes "]) == "yes "
