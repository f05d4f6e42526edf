"""Errors: one root, importable from the package, one line each, useful hints."""

from __future__ import annotations

import inspect

import griffin_core
from griffin_core import errors
from griffin_core.errors import GriffinError, nearest


def test_all_errors_share_a_root_and_an_exit_code() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)]
    raised = [c for c in classes if not issubclass(c, Warning)]
    assert len(raised) >= 8
    assert all(issubclass(c, GriffinError) for c in raised)
    assert all(c.exit_code in (1, 2) for c in raised)
    usage = (errors.ConfigError, errors.InputError, errors.BackendError, errors.KernelNotSupported)
    assert {c.exit_code for c in usage} == {2}
    failed = (errors.CheckpointError, errors.CheckpointMismatch, errors.StateMismatch, errors.ConformanceError)
    assert {c.exit_code for c in failed} == {1}


def test_errors_are_importable_from_the_root() -> None:
    for name in ("GriffinError", "ConfigError", "InputError", "BackendError", "KernelNotSupported", "CheckpointError"):
        assert getattr(griffin_core, name) is getattr(errors, name)


def test_messages_that_quote_a_file_are_one_printable_line() -> None:
    name = "a\nb\x1b[31m\ud800\u202ec\u00e9"
    assert str(errors.CheckpointError(f"tensor {name} is odd")) == "tensor a\\nb\\x1b[31m\\ud800\\u202ecé is odd"
    long = str(errors.CheckpointMismatch("begin " + "\n" * 10**6 + " end"))
    assert long.isprintable()
    assert len(long) < 2000
    assert long.startswith("begin ")
    assert long.endswith(" end")
    assert str(errors.CheckpointError(long)) == long


def test_nearest() -> None:
    assert nearest("toch", ["torch", "numpy"]) == "did you mean 'torch'?"
    assert nearest("zzz", ["torch", "numpy"]) == "known: numpy, torch"
    assert nearest("x", []) == "known: "
