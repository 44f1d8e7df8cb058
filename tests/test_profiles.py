"""Profiles as values: what they must hold, which one suits a model, and that runs keep theirs."""

import re
from dataclasses import fields, replace
from typing import Any

import pytest

from effects.repls import _combinators, _functions_json
from effects.repls._finals import CALLS
from effects.repls._functions import plain, programs
from effects.repls._text import TextView
from rlm_fsm import (
    DSPY,
    PAPER,
    PROFILES,
    PYRLM,
    RLM,
    RLMS,
    FakeAdapter,
    Profile,
    SqliteLog,
    UsageError,
    fold,
    fork,
    replay,
    resume,
    run,
)
from rlm_fsm.event import RunStarted
from rlm_fsm.ids import RunId
from rlm_fsm.options import Options
from rlm_fsm.policy import Policy
from rlm_fsm.profile import fill, texts_of
from rlm_fsm.profiles import AUTO, profile_for, profile_of
from rlm_fsm.upcast import PROFILE_BEFORE_2

every_profile = pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))

BOUND = {
    *programs(TextView(""), parallel_subcalls=False),
    *plain(TextView("")),
    *_functions_json.programs(),
    *_combinators.programs(),
    *CALLS,
    *("P", "ctx", "context", "history", "answer", "SHOW_VARS", "SubcallError"),
}
"""Names that every session binds; that it does is the contract's to test."""


# The values


@every_profile
def test_every_name_that_a_prompt_calls_is_bound(profile: Profile) -> None:
    for prompt in (profile.system, profile.recursive_system, profile.forms):
        called = set(re.findall(r"(?<![\w.])([A-Za-z_]\w*)\(", prompt))
        assert called - BOUND <= {"print", "len", "type"}, profile.name


@every_profile
def test_the_sub_models_prompt_begins_as_programs_expect(profile: Profile) -> None:
    assert profile.subcall_system.startswith("You are a sub-LLM")


@every_profile
def test_the_blocks_in_its_prompts_are_of_a_language_that_runs(profile: Profile) -> None:
    for prompt in texts_of(profile).values():
        for language in re.findall(r"```(\w+)\n", prompt):
            assert language in profile.fences


@every_profile
def test_no_template_has_a_place_that_nothing_fills(profile: Profile) -> None:
    for item in fields(Profile):
        value = getattr(profile, item.name)
        if not isinstance(value, str) or item.name.endswith("system"):
            continue
        known = set(re.findall(r"\{([a-z_]+)\}", DOCUMENTED[item.name]))
        assert set(re.findall(r"\{([a-z_]+)\}", value)) <= known, item.name


DOCUMENTED: dict[str, str] = dict.fromkeys((item.name for item in fields(Profile)), "")


def _document() -> None:
    """Each field's docstring, which lists its places."""
    import ast
    import inspect

    (cls,) = ast.parse(inspect.getsource(Profile)).body
    assert isinstance(cls, ast.ClassDef)
    for node, after in zip(cls.body, cls.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            assert isinstance(after, ast.Expr), node.target.id
            assert isinstance(after.value, ast.Constant)
            places = re.findall(r"``([^`]*\{[^`]*)``", str(after.value.value))
            DOCUMENTED[node.target.id] = " ".join(places)
    DOCUMENTED["first_documents"] += DOCUMENTED["first_text"]


_document()


def test_profiles_have_names_and_hashes_of_their_own() -> None:
    assert list(PROFILES) == ["pyrlm", "rlms", "paper", "dspy"]
    assert len({profile.hash for profile in PROFILES.values()}) == len(PROFILES)
    assert all(re.fullmatch(r"[0-9a-f]{16}", p.hash) for p in PROFILES.values())


@pytest.mark.parametrize("name", [item.name for item in fields(Profile)])
def test_the_hash_covers_every_field(name: str) -> None:
    value: Any = getattr(PYRLM, name)
    other: Any = {"blocks": "last", "variables": "none", "finals": ("text",), "fences": ("repl",)}
    changed = other.get(name) or (
        not value
        if isinstance(value, bool)
        else value + (1 if isinstance(value, int) else "{head}")
    )
    assert replace(PYRLM, **{name: changed}).hash != PYRLM.hash


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"blocks": "some"}, "choose one of all, first, last"),
        ({"variables": "all"}, "choose one of changed, names, none"),
        ({"output_head": -1}, "0 or more"),
        ({"error_chars": 0}, "1 or more"),
        ({"finals": ()}, "name one or more of SUBMIT"),
        ({"finals": ("RETURN",)}, "name one or more of SUBMIT"),
        ({"fences": ()}, "name the languages"),
        ({"first_text": "Do it."}, "lacks {query}"),
        ({"shown": "Output:"}, "lacks {output}"),
    ],
)
def test_a_profile_that_cannot_work_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        replace(PYRLM, **changes)


def test_only_known_places_of_a_template_are_filled() -> None:
    template = 'Set answer["content"] = f"{x}" {{}} {chars}'
    assert fill(template, chars="7") == 'Set answer["content"] = f"{x}" {{}} 7'
    assert fill("{output}", output="{output} {chars}") == "{output} {chars}"


# Which one


@pytest.mark.parametrize(
    ("model", "profile"),
    [
        ("mit-oasys/rlm-qwen3-30b-a3b-v0.1", RLMS),
        ("mit-oasys/RLM-Qwen3-8B-v0.1", PAPER),
        ("NovaSky-AI/SkyRL-Agent-14B", PAPER),
        ("gpt-5", PYRLM),
        ("qwen3-coder", PYRLM),
        ("", PYRLM),
        (None, PYRLM),
    ],
)
def test_auto_picks_by_the_name_of_the_model(model: str | None, profile: Profile) -> None:
    assert profile_for(model) == profile_of("auto", model) == profile


def test_the_table_of_auto_names_profiles_that_there_are() -> None:
    assert {name for _, name in AUTO} <= set(PROFILES)


def test_an_unknown_profile_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="choose one of pyrlm, rlms, paper, dspy, auto"):
        profile_of("pirate")
    with pytest.raises(UsageError, match="give a Profile"):
        Options(profile="rlms")  # pyright: ignore[reportArgumentType]


def test_auto_looks_at_the_adapters_model() -> None:
    trained = FakeAdapter(model="rlm-qwen3-30b-a3b")
    assert RLM(trained, profile="auto").options.profile == RLMS
    assert RLM(FakeAdapter(), profile="auto").options.profile == PYRLM


# Runs

ANSWERS = {
    "pyrlm": ["```python\nx = len(P)\n```", "FINAL_VAR: x"],
    "rlms": ["```repl\nanswer['content'] = len(context)\nanswer['ready'] = True\n```"],
    "paper": ["```repl\nx = len(context)\n```", "So it is\nFINAL_VAR(x)"],
    "dspy": ["```python\nSUBMIT(len(context))\n```"],
}


@pytest.mark.parametrize("backend", ["python", "monty"])
@pytest.mark.parametrize("name", ANSWERS)
def test_each_profile_answers_in_its_own_words(name: str, backend: str) -> None:
    adapter = FakeAdapter(script=list(ANSWERS[name]))
    result = run("q", "abc", adapter=adapter, log=":memory:", profile=name, repl_backend=backend)
    assert (result.output, result.status) == ("3", "finished")
    assert adapter.call_log[0][0]["content"] == PROFILES[name].system


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("spoken", ANSWERS)
def test_each_profile_understands_the_others(name: str, spoken: str) -> None:
    adapter = FakeAdapter(script=list(ANSWERS[spoken]))
    assert run("q", "abc", adapter=adapter, log=":memory:", profile=name).output == "3"


def test_a_run_keeps_the_words_that_it_began_with(tmp_path: Any) -> None:
    path = str(tmp_path / "log.sqlite")
    mine = replace(PYRLM, name="mine", no_output="(nichts)", next_action="Weiter:")
    script = ["```python\nx = 1\n```", "hm", "FINAL: ok"]
    ran = run("q", "t", adapter=FakeAdapter(script=script), log=path, profile=mine)
    assert replay(ran.run_id, log=path).output == "ok"
    with SqliteLog(path) as log:
        events = [logged.event for logged in log.load(RunId(ran.run_id))]
    begun = events[0]
    assert isinstance(begun, RunStarted)
    assert begun.options.profile == mine
    said = [message.content for message in fold(events).root.messages]
    assert "Output:\n(nichts)\nVariables:\n- new x: int 1\n\nWeiter:" in said
    other = replay(ran.run_id, log=path, at=3)
    assert other.options.profile.hash == mine.hash


def test_a_fork_may_change_the_profile(tmp_path: Any) -> None:
    path = str(tmp_path / "log.sqlite")
    ran = run("q", "t", adapter=FakeAdapter(script=["hm", "FINAL: ok"]), log=path)
    adapter = FakeAdapter(script=["```python\nSUBMIT(2)\n```"])
    forked = fork(ran.run_id, at=3, log=path, adapter=adapter, profile="dspy")
    assert forked.output == "2"
    assert "call SUBMIT(answer)" in adapter.call_log[0][-1]["content"]


def test_a_failed_subcall_looks_as_the_profile_says() -> None:
    class Flaky(FakeAdapter):
        async def acomplete(self, messages: Any, **options: Any) -> Any:
            if messages[0]["content"].startswith("You are a sub-LLM"):
                raise OSError("down")
            return self.complete(messages, **options)

    script = ["```repl\nFINAL(llm_query('a')[:7])\n```"]
    assert run("q", "t", adapter=Flaky(script=script), log=":memory:", profile="rlms").output == (
        "Error: "
    )
    told: list[str] = []
    adapter = Flaky(script=[script[0], "FINAL: none"])
    assert run("q", "t", adapter=adapter, log=":memory:").output == "none"
    told = [message["content"] for message in adapter.call_log[-1]]
    assert "SubcallError" in told[-1]


def test_a_limit_on_subcalls_raises_under_every_profile() -> None:
    script = ["```repl\nllm_query('a')\n```", "FINAL: none"]
    adapter = FakeAdapter(script=script)
    run("q", "t", adapter=adapter, log=":memory:", profile="rlms", policy=Policy(max_subcalls=0))
    assert "SubcallLimitError" in adapter.call_log[-1][-1]["content"]


def test_a_profile_may_accept_fewer_forms() -> None:
    strict = replace(RLMS, finals=("answer",))
    script = ["FINAL: 1", "```repl\nSUBMIT(2)\n```", ANSWERS["rlms"][0]]
    adapter = FakeAdapter(script=script)
    assert run("q", "abc", adapter=adapter, log=":memory:", profile=strict).output == "3"
    assert "SUBMIT is not how to finish here." in adapter.call_log[-1][-1]["content"]


# Old words


def test_the_words_of_version_1_are_a_whole_profile() -> None:
    prompts = dict.fromkeys(("system", "subcall_system", "recursive_system"), "x")
    values = {**PROFILE_BEFORE_2, **prompts}
    tuples = {name: tuple(values[name]) for name in ("fences", "finals")}
    assert Profile(**{**values, **tuples}).version == 1


def test_the_words_of_version_1_have_not_changed() -> None:
    """A hash over what old logs are folded with: whoever changes it breaks them."""
    prompts = dict.fromkeys(("system", "subcall_system", "recursive_system"), "x")
    values = {**PROFILE_BEFORE_2, **prompts}
    # What no log of version 1 can hold may change with today's words.
    later = ("pending", "other_form", "finals", "repeated", "not_run")
    values |= {name: getattr(PYRLM, name) for name in later}
    values["fences"] = tuple(values["fences"])
    assert replace(Profile(**values), **dict.fromkeys(later[:2], "")).name == "pyrlm"


def test_dspy_runs_the_first_block_only_and_says_so() -> None:
    script = ["```python\nprint(1)\n```\n```python\nprint(2)\n```", "FINAL: x"]
    adapter = FakeAdapter(script=script)
    run("q", "t", adapter=adapter, log=":memory:", profile=DSPY)
    told = adapter.call_log[-1][-1]["content"]
    assert "1\n\nOnly the first block of code of a reply is run: 1 more of yours" in told


def test_a_resumed_run_goes_on_with_its_own_profile(tmp_path: Any) -> None:
    path = str(tmp_path / "log.sqlite")
    first = FakeAdapter(script=["```repl\nx = 1\n```", "It is unclear."])
    policy = Policy(max_steps=1)
    ran = run("q", "abc", adapter=first, log=path, profile="rlms", policy=policy)
    assert ran.status == "partial"
    second = FakeAdapter(script=list(ANSWERS["rlms"]))
    went_on = resume(ran.run_id, adapter=second, log=path, policy=Policy(max_steps=5))
    assert went_on.output == "3"
    assert second.call_log[0][0]["content"] == RLMS.system
