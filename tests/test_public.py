"""The public face: what `rlm_fsm` exports, and that it is lazy."""

import inspect
import subprocess
import sys

import pytest

import rlm_fsm
import rlm_fsm.adapters


def test_every_public_name_can_be_imported_and_has_a_docstring():
    for name in rlm_fsm.__all__:
        value = getattr(rlm_fsm, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name


def test_public_names_are_named_once():
    assert len(rlm_fsm.__all__) == len(set(rlm_fsm.__all__))


def test_the_public_names_are_exactly_those_listed():
    listed = set(rlm_fsm.__all__) | set(rlm_fsm._SHELL)
    assert set(rlm_fsm._SHELL) <= set(rlm_fsm.__all__)
    assert listed == set(dir(rlm_fsm))


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="no attribute 'ruN'"):
        _ = rlm_fsm.ruN


def test_adapters_have_a_face_of_their_own():
    assert rlm_fsm.adapters.FakeAdapter is rlm_fsm.FakeAdapter
    assert rlm_fsm.adapters.OpenAICompatAdapter is rlm_fsm.OpenAICompatAdapter
    assert rlm_fsm.adapters.ModelResponse is rlm_fsm.ModelResponse


def test_the_command_line_says_its_version():
    done = subprocess.run(
        [sys.executable, "-m", "rlm_fsm", "--version"], capture_output=True, text=True, check=True
    )
    assert rlm_fsm.__version__ in done.stdout


@pytest.mark.parametrize(
    "name", ["run", "arun", "RLM", "runs", "run_many", "arun_many", "stream_many"]
)
def test_entry_points_take_keywords_after_the_first_two(name: str):
    parameters = list(inspect.signature(getattr(rlm_fsm, name)).parameters.values())
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert len(positional) <= 2
