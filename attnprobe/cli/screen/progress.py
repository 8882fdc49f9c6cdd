"""What a person sees while a model trains: a live line on a terminal, plain lines elsewhere."""

import time
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from attnprobe.cli.screen.output import console, say

if TYPE_CHECKING:
    from attnprobe.run import Phase

SECONDS_BETWEEN_LINES = 10.0  # when not on a terminal
SECONDS_BETWEEN_FRAMES = 0.1
WIDE = 100  # columns of a terminal that has room for everything
NARROW_BAR = 8
TAKEN = 10 + 24 + 7 + 4 + 7 + 5  # by name, bar, time elapsed, "left", time left, and the blanks between six columns
TAKEN_NARROW = 10 + NARROW_BAR + 4 + 7 + 4
GAP = "  "
LAST_TO_GO = ("epoch", "val acc", "val loss", "loss", "train acc")  # where not everything fits, the others go first


class TrainingProgress:
    """A training monitor: phase, epoch, loss, accuracy, samples per second and time left."""

    def __init__(self, *, quiet: bool, live: bool = True, prefix: str = "") -> None:
        """live: show a bar where there is a terminal; prefix: what plain lines begin with."""
        self.quiet, self.prefix = quiet, prefix
        self.on_terminal = live and console.is_terminal
        wide = console.width >= WIDE
        whole_line = Column(no_wrap=True)
        columns = (
            TextColumn("{task.description:>10}", table_column=whole_line),
            BarColumn(bar_width=24 if wide else NARROW_BAR),
            TextColumn("{task.fields[numbers]}", table_column=whole_line),
            *((TimeElapsedColumn(),) if wide else ()),
            TextColumn("left", table_column=whole_line),
            TimeRemainingColumn(),
        )
        self.room = console.width - (TAKEN if wide else TAKEN_NARROW)
        self.live = Progress(*columns, console=console, disable=quiet or not self.on_terminal)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.stop()

    def phase_started(self, name: str, phase: "Phase", samples: int, done: int) -> None:
        self.phase, self.samples, self.done = phase, samples, done
        self.bar: TaskID = self.live.add_task(name, total=samples, completed=done, numbers="")
        self.done_at_start, self.start = done, time.perf_counter()
        self.last_line = self.last_frame = self.start

    def stepped(self, samples: int) -> None:
        self.done += samples
        if time.perf_counter() - self.last_frame > SECONDS_BETWEEN_FRAMES:
            self.live.update(self.bar, completed=self.done)
            self.last_frame = time.perf_counter()

    def epoch_finished(self, name: str, epoch: int, numbers: dict[str, float]) -> None:
        now = time.perf_counter()
        rate = (self.done - self.done_at_start) / (now - self.start)
        parts = [f"epoch {epoch + 1}/{self.phase.epochs}", f"loss {numbers['train_loss']:.3f}"]
        if "train_accuracy" in numbers:
            parts.append(f"train acc {numbers['train_accuracy']:.3f}")
        for key, label in (("validation_loss", "val loss"), ("validation_accuracy", "val acc")):
            if key in numbers:
                parts.append(f"{label} {numbers[key]:.3f}")
        parts.append(f"{rate:,.0f} samples/s")
        self.live.update(self.bar, completed=self.done, numbers=fitting(parts, self.room))
        due = epoch + 1 == self.phase.epochs or now - self.last_line > SECONDS_BETWEEN_LINES
        if due and not self.quiet and not self.on_terminal:
            say(
                f"{self.prefix}{name}: {', '.join(parts)}, {(self.samples - self.done) / rate:.0f} s left in this phase"
            )
            self.last_line = now

    def message(self, text: str) -> None:
        say(self.prefix + text, quiet=self.quiet)


def fitting(parts: list[str], room: int) -> str:
    """As many of the numbers as fit, in their order; what matters less is left out first."""

    def rank(part: str) -> int:
        return next((number for number, name in enumerate(LAST_TO_GO) if part.startswith(name)), len(LAST_TO_GO))

    kept = list(parts)
    while len(kept) > 1 and len(GAP.join(kept)) > room:
        kept.remove(max(kept, key=rank))
    return GAP.join(kept)
