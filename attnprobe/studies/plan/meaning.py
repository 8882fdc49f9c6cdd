"""What the settings of an arm stand for. Loads torch: ``keys`` asks only for what it does not remember."""

from attnprobe import run
from attnprobe.config import Table
from attnprobe.run import RunConfig
from attnprobe.studies.plan.keys import Content, digest
from attnprobe.studies.plan.split import continuation_of, pretraining_of


def config_of(table: Table, seed: int = 0) -> RunConfig:
    """The run of an arm in one piece; ConfigError, which names the setting, if it is none."""
    return run.from_table(table | {"seed": seed})


def content_of(table: Table, recording: float | None) -> Content:
    """recording: how the trajectory is recorded; it belongs to what a run leaves."""
    config = config_of(table)
    first, recorded = pretraining_of(config), recording if records(config) else None
    last = list(config.phases())[-1]
    if first is None:
        return Content(own=digest([run.to_table(config), recorded]), pretraining=None, last=last)
    before = digest([run.to_table(first), recorded])
    rest = digest([run.to_table(continuation_of(config)), before, recorded])
    return Content(own=rest, pretraining=before, last=last)


def records(config: RunConfig) -> bool:
    """Whether its models have scores, which is what a trajectory is made of."""
    return config.model.has_scores
