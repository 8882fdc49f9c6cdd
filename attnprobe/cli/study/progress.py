"""What a person sees while a study is carried out: a bar on a terminal, a line for every run elsewhere."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from attnprobe.cli.screen.output import console, say
from attnprobe.cli.train.output import span

if TYPE_CHECKING:
    from attnprobe.studies.job import Job
    from attnprobe.studies.schedule import Change


class StudyProgress:
    """Hears of jobs as they start and end."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        name = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=2))
        columns = (name, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"))
        self.live = Progress(
            *columns, TimeRemainingColumn(), console=console, disable=quiet or not console.is_terminal, expand=True
        )
        self.bar = self.live.add_task("", total=None)
        self.since: dict[str, float] = {}
        self.running: dict[str, str] = {}
        self.total = self.ended = 0

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.stop()

    def started(self, jobs: "Sequence[Job]") -> None:
        """A pass over the jobs begins; those of an earlier one that another process had are among them again."""
        self.total = self.ended + len(jobs)
        self.live.update(self.bar, total=self.total)
        say(f"{len(jobs)} to do", quiet=self.quiet)

    def changed(self, change: "Change") -> None:
        key, name = change.job.key, change.job.name
        if change.state == "started":
            self.since[key], self.running[key] = time.perf_counter(), name
        else:
            self.running.pop(key, None)
        if change.state in ("done", "failed", "not possible"):
            self.ended += 1
            taken = f" ({span(time.perf_counter() - self.since[key])})" if key in self.since else ""
            reason = f": {change.reason}" if change.reason else ""
            say(f"{self.ended}/{self.total} {change.state}{taken}: {name}{reason}", quiet=self.quiet)
        elif change.state == "lost":
            say(f"lost, tried again: {name}: {change.reason}", quiet=self.quiet)
        self.live.update(self.bar, completed=self.ended, description=escape("; ".join(self.running.values())))
