"""``model.score_profile``: the offset profile of a checkpoint as a fixed part of the scores of other models.

It is measured once, when a run starts: the mean row-centred score at each offset, of every layer and head, on
``SEQUENCES`` training samples (all, if there are no more) of the data that the checkpoint was trained on. From then on
every checkpoint of the run holds it; an interrupted run takes it from its own, and nobody needs the donor again.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture import ours
from attnprobe.capture.offset_profile import mean_profile
from attnprobe.errors import ConfigError
from attnprobe.files import checksum, reading
from attnprobe.models import Transformer, TransformerConfig
from attnprobe.run import RunConfig
from attnprobe.scores.directions import DENSE_LIMIT
from attnprobe.scores.shuffled_profiles import shuffled_profile
from attnprobe.streams import stream
from attnprobe.tasks import Data, Spec, Task
from attnprobe.training.saved.checkpoint import Checkpoint, load_checkpoint

SEQUENCES, SEED = 1000, 0  # that the profile is measured on, and the seed that draws them
POSITIONS_AT_ONCE = 2**15  # in a batch of the measurement
STATE = "score_profile.values"  # its name among a checkpoint's tensors


def check_score_profile(config: RunConfig, specs: Iterable[Spec]) -> None:
    """ConfigError unless the donor's heads and positions are those of the run's models; opens the donor only.

    specs: of the data of all phases. ArtifactError if the donor cannot be read.
    """
    path = config.model.score_profile
    if path is None:
        return
    donor = load_checkpoint(path)
    if not donor.run.model.has_scores:
        raise ConfigError(f"model.score_profile: {path} has no attention, so it has no profile", "name another one")
    for spec in specs:
        if spec.length > DENSE_LIMIT:
            reason = f"model.score_profile: {spec.length} positions are more than the {DENSE_LIMIT} it can be used with"
            raise ConfigError(reason, hint="shorten the sequences, or leave it out")
        pairs = zip(geometry(donor.run.model, donor.spec).items(), geometry(config.model, spec).values(), strict=True)
        for (what, there), here in pairs:
            if there != here:
                reason = f"model.score_profile: {path} has {what} {there}, this model has {here}"
                raise ConfigError(
                    reason, hint="take a checkpoint of the same geometry: layers, heads, length, causality"
                )


def geometry(model: TransformerConfig, spec: Spec) -> dict[str, Any]:
    """What two models must have in common for one's profile to be the other's."""
    shape = " x ".join(map(str, spec.grid or (spec.length,)))
    return {"layers": model.layers, "heads": model.heads, "positions": shape, "causal": model.causal}


def measured_profile(config: RunConfig, load: Callable[[Task], Data], device: torch.device) -> Tensor:
    """What is added to the scores, (layer, head, *offsets) float64: measured, shuffled if asked for, times its dose."""
    settings = config.model
    assert settings.score_profile is not None
    donor = load_checkpoint(settings.score_profile)
    data = load(donor.task)
    if data.spec != donor.spec:
        reason = f"model.score_profile: the data found does not fit {settings.score_profile}"
        raise ConfigError(reason, hint="it was trained on inputs of another kind; --data-dir says where its data are")
    subject = ours.of(donor.make_model().to(device), data.train, trained=donor.objectives())
    samples = subject.draw(SEQUENCES, SEED)
    at_once = max(1, POSITIONS_AT_ONCE // (subject.space.size * subject.per_sample))
    profile = mean_profile(subject, np.split(samples, range(at_once, len(samples), at_once)))
    if settings.score_profile_shuffle is not None:
        draw = stream(settings.score_profile_shuffle, "shuffled score profile")
        profile = shuffled_profile(subject.space, profile, draw)
    return settings.score_profile_dose * profile


def kept_profile(checkpoint: Checkpoint) -> Tensor:
    """That of an earlier part of the run."""
    return checkpoint.state[STATE]


def install(model: Transformer, profile: Tensor | None) -> None:
    if profile is not None:
        assert model.score_profile is not None
        model.score_profile.set(profile)


def described(config: RunConfig, load: Callable[[Task], Data]) -> dict[str, Any]:
    """For the manifest: whose profile it is, and how it was measured; empty where there is none."""
    path = config.model.score_profile
    if path is None:
        return {}
    with reading(path):
        digest = checksum(path)
    there = len(load(load_checkpoint(path).task).train)
    how = {"sequences": min(SEQUENCES, there), "split": "train", "seed": SEED}
    settings = {"dose": config.model.score_profile_dose, "shuffle": config.model.score_profile_shuffle}
    return {"score_profile": {"path": str(path), "sha256": digest, **how, **settings}}
