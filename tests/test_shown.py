"""What the model is shown of a cell, and in how many characters."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_fsm.event import CodeExecuted
from rlm_fsm.ids import ROOT, CallId
from rlm_fsm.profile import Profile
from rlm_fsm.profiles import DSPY, PROFILES, PYRLM, RLMS
from rlm_fsm.shown import render
from rlm_fsm.values import CodeError, GivenFinal, Variable

SMALL = replace(PYRLM, output_head=6, output_tail=4, error_chars=10)


def ran(stdout: str = "", *, chars: int | None = None, **fields: object) -> CodeExecuted:
    total = len(stdout) if chars is None else chars
    cell = CallId("0.c1")
    return CodeExecuted(frame=ROOT, call_id=cell, stdout=stdout, stdout_chars=total, **fields)


def test_output_that_fits_is_shown_whole() -> None:
    assert render(ran("0123456789\n"), SMALL) == "0123456789"
    assert render(ran("a\n\n\n"), SMALL) == "a"


def test_long_output_keeps_its_head_and_its_tail_and_says_what_was_cut() -> None:
    shown = render(ran("a" * 2_000 + "end!\n"), SMALL)
    assert shown == "aaaaaa\n... (1,994 of 2,004 characters left out) ...\nend!"


def test_output_that_the_session_cut_shows_no_tail_that_is_none() -> None:
    shown = render(ran("b" * 50, chars=9_000), SMALL)
    assert shown == "bbbbbbbbbb\n... (8,990 of 9,000 characters left out) ..."


def test_profiles_cut_in_their_own_way() -> None:
    long = ran("h" * 15_000 + "t" * 15_000)
    assert render(long, RLMS) == "h" * 15_000 + "t" * 5_000 + "... + [10,000 of 30,000 chars...]"
    head, _, rest = render(long, DSPY).partition("\n\n")
    assert head == "h" * 5_000
    assert rest == "... (20,000 of 30,000 characters omitted) ...\n\n" + "t" * 5_000


def test_an_error_keeps_its_last_characters() -> None:
    error = CodeError(kind="E", message="m", traceback="x" * 90 + "the reason")
    assert render(ran(error=error), SMALL) == "(the last 10 of 100 characters) ...\nthe reason"


def test_output_error_pending_answer_and_variables_stand_in_this_order() -> None:
    event = ran(
        "out\n",
        error=CodeError(kind="E", message="m"),
        final=GivenFinal(form="FINAL", text="x" * 900),
        repl_lost=True,
        variables=(Variable(name="n", summary="int 1", is_new=True), Variable(name="s")),
        more_variables=3,
    )
    lines = render(event, PYRLM).split("\n")
    assert lines[:3] == [
        "out",
        "E: m",
        "Your final answer (FINAL) was not accepted, since the code raised afterwards. It was:",
    ]
    assert lines[3] == "x" * 500
    assert lines[4:] == [
        "Mend the error and give the answer again.",
        "(the session was restarted: your variables are gone)",
        "Variables:",
        "- new n: int 1",
        "- s: ",
        "- and 3 more",
    ]


def test_names_of_variables_are_a_list() -> None:
    event = ran("1", variables=(Variable(name="a"), Variable(name="b")))
    assert render(event, RLMS) == "1\nREPL variables: ['a', 'b']"


def test_nothing_is_said_to_be_nothing() -> None:
    assert render(ran("\n"), PYRLM) == "(no output; print what you want to see)"


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
@given(st.text(max_size=200), st.integers(0, 5), st.integers(0, 5), st.integers(0, 10**6))
def test_output_stays_within_the_limit_of_the_profile(
    profile: Profile, stdout: str, head: int, tail: int, lost: int
) -> None:
    small = replace(profile, output_head=head, output_tail=tail)
    shown = render(ran(stdout, chars=len(stdout) + lost), small)
    longest = max(len(profile.output_cut), len(profile.no_output)) + 40
    assert len(shown) <= head + tail + longest
