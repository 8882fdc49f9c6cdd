"""What is missing of a study, as jobs."""

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attnprobe import run
from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.run import RunConfig
from attnprobe.studies.job import Job
from attnprobe.studies.plan.keys import Planned
from attnprobe.studies.plan.meaning import config_of
from attnprobe.studies.plan.split import continuation_of, pretraining_of
from attnprobe.studies.request import Request
from attnprobe.studies.store.folder import Store
from attnprobe.studies.store.outcomes import has_checkpoint, measure_key, measured_run
from attnprobe.studies.study import Measure, Study
from attnprobe.studies.work.measuring import Measurement
from attnprobe.studies.work.training import Training
from attnprobe.training.estimate import count_memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """A request, and where its runs are carried out."""

    request: Request
    device: str = "auto"
    data_dir: Path | None = None

    @property
    def store(self) -> Store:
        return self.request.store

    @property
    def runs(self) -> Sequence[Planned]:
        return self.request.runs

    @property
    def study(self) -> Study:
        return self.request.study


def trainings(asked: Asked) -> dict[str, Training]:
    """Key -> every distinct run, those that others start from before them."""
    configs: dict[int, RunConfig] = {}
    found: dict[str, Training] = {}
    common = {"store": asked.store, "recording": asked.study.trajectory_every}
    common |= {"device": asked.device, "data_dir": asked.data_dir}
    for planned in asked.runs:
        whole = configs.setdefault(id(planned.arm), config_of(planned.arm.table))
        whole = dataclasses.replace(whole, seed=planned.seed)
        source, before = None, pretraining_of(whole)
        if before is not None and planned.pretraining is not None:
            name = f"pretraining of {planned.name()}"
            source = found.setdefault(
                planned.pretraining, Training(key=planned.pretraining, name=name, config=before, **common)
            )
            whole = continuation_of(whole)
        if planned.key not in found:
            found[planned.key] = Training(key=planned.key, name=planned.name(), config=whole, source=source, **common)
    return found


def missing(asked: Asked) -> list[Job]:
    """What is not done yet, in an order in which it can be done; runs of the first seed come first."""
    known = trainings(asked)
    wanted = dict.fromkeys(planned.key for planned in asked.runs if not _done(known[planned.key]))
    measured = _missing_measures(asked, known)
    wanted |= dict.fromkeys(key for key, *_ in measured.values() if not _done(known[key]))
    sources = [source.key for key in wanted if (source := known[key].source) is not None and not _done(source)]
    keys = {*sources, *wanted}
    memory = _Memory()
    jobs = [
        Job(
            key=key,
            name=training.name,
            work=training,
            needs=() if training.source is None or training.source.key not in keys else (training.source.key,),
            memory=memory.of(training.config),
        )
        for key, training in known.items()
        if key in keys
    ]
    for name, (key, measure, quantities) in measured.items():
        file = measure_key(measure)
        work = Measurement(
            store=asked.store, key=key, measure=measure, quantities=frozenset(quantities), file=file,
            device=asked.device, data_dir=asked.data_dir,
        )  # fmt: skip
        of = f"{measure.probe} of {known[key].name}"
        jobs.append(Job(key=name, name=of, work=work, needs=(key,) if key in keys else ()))
    return jobs


def damaged(asked: Asked) -> Iterable[str]:
    """What of all that was finished is no longer whole, in words."""
    return filter(None, (training.damage() for training in trainings(asked).values()))


def _missing_measures(asked: Asked, known: Mapping[str, Training]) -> dict[str, tuple[str, Measure, list[str]]]:
    """Key of a job -> the run, the measure and what is wanted of it; one for all quantities of a probe.

    A quantity that a finished measurement lacks is missing: the probe will say that it does not know it.
    """
    found: dict[str, tuple[str, Measure, list[str]]] = {}
    for planned in asked.runs:
        for measure in asked.study.measures.values():
            if has_checkpoint(planned, measure):
                key, file = measured_run(planned, measure), measure_key(measure)
                with contextlib.suppress(ArtifactError):
                    numbers = asked.store.measured(key, file)
                    if numbers == {} or (numbers is not None and measure.quantity in numbers):
                        continue  # no numbers at all: there is nothing to measure in such a model
                found.setdefault(f"{key}-{file}", (key, measure, []))[2].append(measure.quantity)
    return found


def _done(training: Training) -> bool:
    try:
        finished = training.store.result(training.key) is not None
    except ArtifactError:
        return False
    return finished and not training.damage()


class _Memory:
    """Bytes that runs take at most; counted once for all that have the same shape."""

    def __init__(self) -> None:
        self.known: dict[RunConfig, int] = {}

    def of(self, config: RunConfig) -> int:
        shape = dataclasses.replace(config, seed=0)
        if shape not in self.known:
            self.known[shape] = self._count(shape)
        return self.known[shape]

    def _count(self, config: RunConfig) -> int:
        """0 where the data would have to be loaded to know."""
        most = 0
        for phase in config.phases().values():
            data = config.task_of(phase).outline()
            if data is None:
                return 0
            try:
                target = run.reconstruction_target(config, data.spec, config.pretrain)
                most = max(most, count_memory(config, phase, data, target).total)
            except (ConfigError, RuntimeError):  # the run itself will say what is wrong
                return 0
        return most
