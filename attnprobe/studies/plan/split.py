"""A run with both phases in two parts, so that arms that ask for the same pretraining share it."""

import dataclasses

from attnprobe.run import RunConfig


def pretraining_of(config: RunConfig) -> RunConfig | None:
    """The pretraining of a run as a run of its own; None if it is to be carried out in one piece.

    What finetuning does with its checkpoint has no say in it. The model is the whole one: its initial values depend on
    the seed and their names alone, so both heads are in it as they would be. A first phase on labels stays where it is:
    what its models reconstruct depends on the phase after it.
    """
    phase = config.pretrain
    if phase is None or config.finetune is None or phase.objective.target is None:
        return None
    own = dataclasses.replace(phase, task=None, transfer="all")  # nothing comes before it
    return dataclasses.replace(config, task=config.task_of(phase), pretrain=own, finetune=None)


def continuation_of(config: RunConfig) -> RunConfig:
    """The rest of the run that ``pretraining_of`` takes apart, without the path of the checkpoint it starts from."""
    return dataclasses.replace(config, pretrain=None)
