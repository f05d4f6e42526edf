"""Environment variables: one table, parsed strictly."""

from __future__ import annotations

import os
import warnings

import pytest

from griffin_core import env
from griffin_core.errors import ConfigError


def test_unset_and_empty_give_the_default() -> None:
    assert env.read("GRIFFIN_KERNEL", {}) == "auto"
    assert env.read("GRIFFIN_KERNEL", {"GRIFFIN_KERNEL": "  "}) == "auto"
    assert env.read("GRIFFIN_BACKEND", {}) is None


def test_values_are_stripped_and_checked() -> None:
    assert env.read("GRIFFIN_BACKEND", {"GRIFFIN_BACKEND": " numpy "}) == "numpy"
    assert env.read("GRIFFIN_TEST_PROFILE", {"GRIFFIN_TEST_PROFILE": "thorough"}) == "thorough"
    with pytest.raises(ConfigError, match=r"GRIFFIN_TEST_PROFILE='quik' is not understood; did you mean 'quick'\?"):
        env.read("GRIFFIN_TEST_PROFILE", {"GRIFFIN_TEST_PROFILE": "quik"})


def test_variables_outside_the_table_cannot_be_read() -> None:
    with pytest.raises(KeyError):
        env.read("GRIFFIN_NOTHING", {"GRIFFIN_NOTHING": "1"})


def test_typing_slips_are_warned_about() -> None:
    with pytest.warns(UserWarning, match=r"GRIFFIN_BACKED is set but not read.*did you mean 'GRIFFIN_BACKEND'\?"):
        env.warn_unknown({"GRIFFIN_BACKED": "torch"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.warn_unknown({"GRIFFIN_BACKEND": "torch", "PATH": "/bin"})


def test_the_process_environment_is_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIFFIN_KERNEL", "loop")
    assert env.read("GRIFFIN_KERNEL") == "loop"
    monkeypatch.delenv("GRIFFIN_KERNEL")
    assert env.read("GRIFFIN_KERNEL") == "auto"


def test_every_variable_is_described() -> None:
    for variable in env.VARIABLES:
        assert variable.name.startswith((env.PREFIX, "KERAS_"))
        assert len(variable.meaning) > 10
        assert variable.default is None or not variable.values or variable.default in variable.values


def test_a_child_gets_this_environment_and_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_VARIABLE", "here")
    found = env.child_environment({"OTHER_VARIABLE": "there"})
    assert (found["SOME_VARIABLE"], found["OTHER_VARIABLE"]) == ("here", "there")
    assert "OTHER_VARIABLE" not in os.environ


def test_a_hidden_variable_stands_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_VARIABLE", "here")
    monkeypatch.delenv("OTHER_VARIABLE", raising=False)

    def fail() -> None:
        with env.hidden("SOME_VARIABLE"), env.hidden("OTHER_VARIABLE"):
            raise KeyError(os.environ.get("SOME_VARIABLE", "not seen"))

    with pytest.raises(KeyError, match="not seen"):
        fail()
    assert os.environ["SOME_VARIABLE"] == "here"
    assert "OTHER_VARIABLE" not in os.environ
