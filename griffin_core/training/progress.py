"""Progress of a run: a live bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, TextIO

from griffin_core.memory import human
from griffin_core.training.spec import TrainSpec

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_SECONDS = 10.0
"""Seconds between lines where there is no terminal."""
AVERAGED = 20
"""Steps over which the shown loss and speed are averaged."""


class ProgressReporter:
    """Shows steps, loss, tokens per second and the time left.

    Args:
        stream: a terminal gets a live bar, anything else plain lines.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._bar: Progress | None = None
        self._recent: deque[dict[str, float]] = deque(maxlen=AVERAGED)
        self._total, self._line_due = 0, 0.0

    def begin(self, spec: TrainSpec, parameters: int, step: int) -> None:
        """Say what is trained, and open the bar."""
        self._total, self._line_due = spec.options.steps, time.monotonic()
        what = f"{spec.name}: {parameters:,} parameters ({human(4 * parameters)}), {spec.options.steps} steps"
        where = f" from step {step}" if step else ""
        self.note(f"training {what} of {spec.batch} x {spec.length} tokens on {spec.backend}{where}")
        if self.stream.isatty():
            self._open_bar(step)

    def step(self, record: dict[str, float]) -> None:
        """Show one step."""
        self._recent.append(record)
        loss = sum(entry["loss"] for entry in self._recent) / len(self._recent)
        seconds = sum(entry["seconds"] for entry in self._recent)
        speed = sum(entry["tokens"] for entry in self._recent) / seconds
        step = int(record["step"])
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=step, loss=f"{loss:.3f}", speed=f"{speed:,.0f}")
        elif time.monotonic() >= self._line_due or step == self._total:
            self._line_due = time.monotonic() + LINE_SECONDS
            left = (self._total - step) * seconds / len(self._recent)
            self.note(f"step {step}/{self._total}  loss {loss:.4f}  {speed:,.0f} tokens/s  {clock(left)} left")

    def note(self, text: str) -> None:
        """Print one line, above the bar when there is one."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            self.stream.write(text + "\n")
            self.stream.flush()

    def end(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _open_bar(self, step: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[speed]} tokens/s"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(file=self.stream), refresh_per_second=4)
        self._bar.add_task("train", total=self._total, completed=step, loss="-", speed="-")
        self._bar.start()


def clock(seconds: float) -> str:
    """Minutes and seconds: 3:07; hours before them where there are any."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    tail = f"{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
    return f"{hours}:{tail}" if hours else tail
