"""What a run shows while it goes."""

import io

import pytest

from griffin_core.training import plots
from griffin_core.training.progress import ProgressReporter, clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def record(step, loss=2.0):
    return {"step": step, "loss": loss, "tokens": 100.0, "seconds": 0.5, "learning_rate": 0.1, "grad_norm": 1.0}


def test_plain_lines_come_first_now_and_then_and_last(spec, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("griffin_core.training.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    reporter = ProgressReporter(stream)
    reporter.begin(spec, 1234, 0)
    for step in range(1, 13):
        now[0] += 4.0
        reporter.step(record(step, loss=float(step)))
    reporter.end()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "training tiny: 1,234 parameters (4.94 kB), 12 steps of 2 x 16 tokens on torch"
    assert [line.split()[1] for line in lines[1:]] == ["1/12", "4/12", "7/12", "10/12", "12/12"]
    assert lines[1] == "step 1/12  loss 1.0000  200 tokens/s  0:06 left"
    assert "loss 6.5000" in lines[-1]  # the mean of the last steps
    assert lines[-1].endswith("0:00 left")


def test_a_terminal_gets_a_bar_with_lines_above_it(spec):
    stream = Terminal()
    reporter = ProgressReporter(stream)
    reporter.begin(spec, 1234, 8)
    reporter.step(record(9, loss=1.25))
    reporter.note("a line [red]as it is[/red]")
    reporter.end()
    shown = stream.getvalue()
    assert "from step 8" in shown
    assert "a line [red]as it is[/red]" in shown
    for word in ("9/12", "loss 1.250", "200 tokens/s"):
        assert word in shown


def test_clock():
    assert [clock(seconds) for seconds in (-1, 0, 59.6, 187, 3661)] == ["0:00", "0:00", "1:00", "3:07", "1:01:01"]


def test_the_loss_curve_is_a_picture_and_nothing_without_steps(tmp_path):
    pytest.importorskip("matplotlib")
    plots.loss_curve([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    plots.loss_curve([record(step, loss=3.0 / step) for step in range(1, 4)], tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG\r\n")
