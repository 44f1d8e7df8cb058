"""Recorded replies of real models are read as the recorded runtimes read them, and nothing that
only mentions an answer is taken for one."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from agreement import (
    PROFILES_OF,
    Turn,
    answer_agrees,
    blocks_agree,
    listed,
    recorded_runs,
    turns,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.pipeline import is_successful

from rlm_fsm import FakeAdapter, run
from rlm_fsm.profile import Profile
from rlm_fsm.profiles import PAPER, PROFILES, PYRLM
from rlm_fsm.reply import Reply, TextAnswer, VariableAnswer, parse

MENTION = re.compile(r"FINAL|SUBMIT|\banswer\b|\bdone\(", re.IGNORECASE)
"""What might be taken for an answer."""


def test_the_recorded_replies_are_all_there() -> None:
    runs = recorded_runs()
    assert (len(runs), len(turns())) == (259, 1303)
    for recorded in runs:
        assert recorded["dialect"] in PROFILES_OF
        assert recorded["source"].startswith("github:")
        assert recorded["path"]
        assert len(recorded["commit"]) == 40
        assert recorded["licence"] in ("MIT", "Apache-2.0")


def test_blocks_are_those_that_were_run_or_the_difference_is_listed() -> None:
    assert {turn.name for turn in turns() if not blocks_agree(turn)} == listed("blocks").keys()


def test_answers_are_found_and_only_where_they_are_or_the_difference_is_listed() -> None:
    assert {turn.name for turn in turns() if not answer_agrees(turn)} == listed("answers").keys()


def test_blocks_listed_for_their_language_agree_when_only_that_language_runs() -> None:
    strict = replace(PAPER, fences=("repl",), bare_code=False)
    names = {name for name, why in listed("blocks").items() if "marked `repl` only" in why}
    assert len(names) == 36
    for turn in turns():
        if turn.name in names:
            assert parse(turn.text, strict).value_or(Reply()).blocks == turn.executed, turn.name


def test_blocks_listed_as_answers_are_answers() -> None:
    names = {name for name, why in listed("blocks").items() if "nothing but an answer" in why}
    for turn in turns():
        if turn.name in names:
            assert turn.reply.answer is not None, turn.name
            assert len(turn.executed) == len(turn.reply.blocks) + 1, turn.name


def test_runs_listed_as_asked_once_more_end_in_a_reply_without_an_answer() -> None:
    names = {name for name, why in listed("answers").items() if "asked once more" in why}
    assert len(names) == 44
    for turn in turns():
        if turn.name in names:
            assert turn.is_last, turn.name
            assert turn.reply.answer is None, turn.name


def test_the_default_profile_reads_whole_replies_alike() -> None:
    for turn in turns():
        if turn.run["fidelity"] == "verbatim":
            assert parse(turn.text, PYRLM).value_or(Reply()) == turn.reply, turn.name


REFUSED = sorted(name for name, why in listed("answers").items() if "doesn't exist" in why)


@pytest.mark.parametrize("name", REFUSED)
def test_an_answer_that_names_no_variable_does_not_end_the_run(name: str, tmp_path: Path) -> None:
    turn = next(turn for turn in turns() if turn.name == name)
    assert turn.final is None
    before = [other.text for other in turns() if other.run is turn.run][: turn.number + 1]
    adapter = FakeAdapter(script=[*before, "FINAL(the run went on)"])
    adapter.add_rule("You are a sub-LLM", "a stand-in")
    result = run(
        turn.run["path"],
        "nothing of the recorded context",
        adapter=adapter,
        profile=turn.profile,
        repl_backend="monty",
        log=str(tmp_path / "log.db"),
    )
    assert (result.status, result.output) == ("finished", "the run went on")


# -- false endings ------------------------------------------------------------------------------


def mentions() -> Iterator[str]:
    """The lines of all recorded replies that speak of an answer, each once."""
    lines = (line for turn in turns() for line in turn.text.split("\n"))
    return iter(dict.fromkeys(line for line in lines if MENTION.search(line)))


def is_form(line: str) -> bool:
    """Whether a line begins one of the forms of an answer in text."""
    return re.match(r"[ \t]*[*`]{0,3}FINAL(?:_VAR)?[*`]{0,3}[ \t]*[:(]", line) is not None


def test_a_mention_of_an_answer_in_prose_is_none() -> None:
    seen = [line for line in mentions() if not is_form(line)]
    assert len(seen) == 824
    for line in seen:
        for reply in (line, f"I begin.\n{line}\nSo much for that.", f"```repl\nx = 1\n```\n{line}"):
            for profile in PROFILES.values():
                assert parse(reply, profile).value_or(Reply()).answer is None, line


def test_a_mention_that_a_line_ends_with_is_none() -> None:
    form = re.compile(r"(\S.*?FINAL(?:_VAR)?\([^()]+\))")
    cut = {found[1] for line in mentions() if (found := form.search(line))}
    seen = [line for line in cut if not is_form(line)]
    assert len(seen) == 2
    for line in seen:
        given = f"I begin.\n{line}\n\nSo much for that."
        assert parse(given, PAPER).value_or(Reply()).answer is None, line


def test_an_answer_in_a_comment_a_string_or_a_thought_is_none() -> None:
    seen = [line for line in mentions() if "`" not in line and "think" not in line]
    assert sum(map(is_form, seen)) == 58
    plain = [line for line in seen if '"' not in line and "\\" not in line]
    assert len(plain) == 449
    for line in seen:
        for reply in (
            f"```repl\nx = 1\n# {line}\n```",
            f"<think>\n{line}\n</think>\n",
            f"x = 1\n#{line}",
        ):
            assert parse(reply, PAPER).value_or(Reply()).answer is None, line
    for line in plain:
        for reply in (f'```repl\nx = """\n{line}\n"""\n```', f'x = """\n{line}\n"""\nprint(x)'):
            assert parse(reply, PAPER).unwrap().answer is None, line


# -- mutated replies ----------------------------------------------------------------------------

FENCES = ("```", "```repl", "```python", "~~~", "````", "```output", "    ```")


def without_answers() -> list[Turn]:
    return [turn for turn in turns() if turn.reply.answer is None]


def outcome(text: str, profile: Profile, finish_reason: str | None = None) -> Reply:
    """What a text is read as; it is a reply with something in it, or an error with its words."""
    result = parse(text, profile, finish_reason)
    if is_successful(result):
        assert result.unwrap().blocks or result.unwrap().answer
        return result.unwrap()
    assert result.failure().reason
    return Reply()


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_a_reply_that_is_cut_anywhere_gains_no_answer(data: st.DataObject) -> None:
    turn = data.draw(st.sampled_from(without_answers()))
    cut = data.draw(st.integers(0, len(turn.text)))
    assert outcome(turn.text[:cut], turn.profile, "length").answer is None


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_a_reply_that_was_mangled_has_no_answer_unless_a_line_gives_it(data: st.DataObject) -> None:
    turn = data.draw(st.sampled_from(turns()))
    lines = turn.text.split("\n")
    for _ in range(data.draw(st.integers(1, 4))):
        lines = mangled(lines, data)
    text = "\n".join(lines)
    match outcome(text, turn.profile).answer:
        case TextAnswer():
            assert any(map(is_form, lines))
        case VariableAnswer(name):
            assert any(is_form(line) and name in line for line in lines)
        case None:
            pass


def mangled(lines: list[str], data: st.DataObject) -> list[str]:
    """The lines with one thing done to them."""
    at = data.draw(st.integers(0, len(lines)))
    match data.draw(st.sampled_from(["cut", "unfence", "double", "shuffle", "fence"])):
        case "cut":
            return lines[:at]
        case "unfence":
            return [line for line in lines if not line.lstrip().startswith("```")]
        case "double":
            return lines[:at] + lines
        case "shuffle":
            return data.draw(st.permutations(lines)) if len(lines) < 200 else lines[::-1]
        case _:
            return [*lines[:at], data.draw(st.sampled_from(FENCES)), *lines[at:]]
