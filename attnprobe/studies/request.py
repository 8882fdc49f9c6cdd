"""A study as it is asked for: at one scale, for some seeds, with settings for every run, in one store."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnprobe.errors import ConfigError, RunError
from attnprobe.studies.plan.checks import check_size
from attnprobe.studies.plan.grid import Arm, arms
from attnprobe.studies.plan.keys import Planned, planned
from attnprobe.studies.plan.reading import Source, read
from attnprobe.studies.store.folder import Store
from attnprobe.studies.store.outcomes import outcomes
from attnprobe.studies.study import Outcome, Study

if TYPE_CHECKING:
    import pandas

AGAIN = "attnprobe study status has all reasons; the same call tries again"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """Light: to name its runs torch is loaded only where the store does not remember how."""

    source: Source
    scale: str
    seeds: Sequence[int]
    settings: Sequence[str]  # "section.key=value" of every run
    store: Store

    @property
    def name(self) -> str:
        return self.source.name

    @functools.cached_property
    def study(self) -> Study:
        return self.source.at(self.scale)

    @functools.cached_property
    def arms(self) -> list[Arm]:
        with self._named():
            return arms(self.study, self.scale, self.settings)

    @functools.cached_property
    def runs(self) -> list[Planned]:
        """Every run of the grid, seed after seed."""
        memory = self.store.memory if self.store.is_ours() else None
        with self._named():
            return planned(self.arms, self.seeds, self.study.trajectory_every, memory)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Wrong settings of runs are told with the study's file, where they stand unless they came after -s."""
        try:
            yield
        except ConfigError as error:
            path = f"{self.source.path}: "
            raise ConfigError(path + str(error).removeprefix(path), hint=error.hint) from error

    def outcomes(self) -> list[Outcome]:
        """What the store has of every run."""
        return outcomes(self.store, self.runs, self.study.measures)

    def run(
        self,
        *,
        executor: str = "serial",
        jobs: int | None = None,
        device: str = "auto",
        data_dir: str | Path | None = None,
    ) -> "Request":
        """Train and measure what is missing, as ``attnprobe study run`` does; returns itself.

        RunError if some of it failed, with the first reason; the rest is done. Interrupted if a run was asked to stop,
        and has saved; the same call goes on.
        """
        from attnprobe.studies.executors import opened
        from attnprobe.studies.work.carrying import complete
        from attnprobe.studies.work.jobs import Asked
        from attnprobe.training.loop import Interrupted

        asked = Asked(request=self, device=device, data_dir=None if data_dir is None else Path(data_dir))
        self.store.claim()
        with opened(executor, folder=self.store.path / "executor", jobs=jobs) as working:
            ended = complete(asked, working)
        failed = [error for error in ended.values() if error is not None]
        if stopped := next((error for error in failed if isinstance(error, Interrupted)), None):
            raise stopped
        if failed:
            raise RunError(f"{len(failed)} of {len(ended)} jobs failed, the first because {failed[0]}", hint=AGAIN)
        return self

    def to_frame(self) -> "pandas.DataFrame":
        """A row for every run: place on the axes, seed, trial, and all its numbers; NaN where there are none yet."""
        import pandas

        return pandas.DataFrame([o.place | {"seed": o.seed} | o.trial | o.numbers for o in self.outcomes()])


def request(
    name: str,
    *,
    scale: str | None = None,
    seeds: Sequence[int] | None = None,
    settings: Sequence[str] = (),
    out: str | Path = "studies",
) -> Request:
    """name: of a study, or the path of a .toml file; scale: its first one by default; seeds: as many as the scale says.

    ConfigError, one line, for whatever makes no sense; runs themselves are not looked at before they are asked for.
    """
    source = read(name)
    chosen = source.scale(scale)
    numbers = list(range(source.study.scales[chosen].seeds)) if seeds is None else list(seeds)
    check_size(source.at(chosen), chosen, len(numbers))
    return Request(source=source, scale=chosen, seeds=numbers, settings=tuple(settings), store=Store(path=Path(out)))
