"""Arms of an experiment: runs that differ in nothing but the seed."""

from collections.abc import Sequence
from pathlib import Path

from attnprobe import presets, run
from attnprobe.config import Table, override
from attnprobe.run import RunConfig


def settings_of(
    preset: str,
    settings: Sequence[str] = (),
    *,
    pretrain: bool = True,
    finetune: bool = True,
    pretrained: str | Path | None = None,
) -> Table:
    """The settings of an arm. preset: a name or a .toml file; settings: "section.key=value".

    pretrain, finetune: whether it has these phases. pretrained: a checkpoint to finetune from instead of pretraining.
    """
    table = override(presets.read_table(preset), settings)
    if not pretrain or pretrained is not None:
        table.pop("pretrain", None)
    if not finetune:
        table.pop("finetune", None)
    return table if pretrained is None else table | {"pretrained": str(pretrained)}


def with_seeds(table: Table, seeds: Sequence[int]) -> list[RunConfig]:
    """The runs of an arm, one per seed."""
    return [run.resolved(run.from_table(table | {"seed": seed})) for seed in seeds]
