"""How often p-values of vision models are below .05 where nothing is to be found: images are noise, labels are drawn.

``python -m tests.capture.image_calibration 200`` (replicas; 200 take a few minutes).
"""

import sys

import numpy as np
import torch
import transformers

from attnprobe.calibration.verdicts import exact_interval
from attnprobe.capture.hugging_face import image_losses
from attnprobe.capture.hugging_face.patches import Patches, PatchInputs
from attnprobe.capture.watching.watched import Watched
from attnprobe.models.hugging_face.loading import library
from attnprobe.probes import alignment, interventions
from attnprobe.scores.directions import Direction
from attnprobe.scores.distance_profiles import contrast_profile
from tests.capture.hugging_face_folders import VISION

N, CLASSES = 24, 2


def subject(name: str, seed: int) -> Watched:
    """An untrained model, new in every replica, with losses as the command line gives them."""
    saved_by, sizes = VISION[name]
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(name.split()[-1], **sizes | {"initializer_range": 0.5})
    model = getattr(transformers, saved_by).from_config(config).eval()
    draws = np.random.default_rng(seed)
    pixels = torch.from_numpy(draws.standard_normal((N, 3, 20, 20))).float()
    labels = draws.permutation(np.arange(N) % CLASSES)
    patches = Patches.of(config, pixels)
    hidden = image_losses.hidden_patches(N, patches, seed)
    if name == "masked vit":
        image_losses.attach_last_states(model)
        reconstruction = image_losses.masked_patches(hidden, patches)
    else:
        reconstruction = image_losses.greyed_patches(hidden, patches, 3, config.hidden_size, seed)
    losses = {"label": image_losses.fresh_readout(labels, patches, config.hidden_size, seed)}
    losses["reconstruction"] = reconstruction
    inputs = PatchInputs.of([{"pixel_values": pixels}], valid=None, device=torch.device("cpu"), patches=patches)
    return Watched(
        model, inputs, grid=patches.grid, leading=None, only="*", losses=losses, initialise=None, labels=labels
    )


def p_values(name: str, seed: int) -> dict[str, float]:
    """Of the first head of the last layer."""
    one = subject(name, seed)
    near = Direction(name="near", profile=contrast_profile(one.space.layout, 2))
    found = alignment.measure(one, directions=[near], shuffles=199, orders=39, groups=1, seed=seed)
    wanted = ("label.dependent.mean", "reconstruction.positions")
    p = {row.quantity: row.p_value for row in found.rows if (row.layer, row.head) == (1, 0) and row.quantity in wanted}
    doses = interventions.dose_response(one, loss="reconstruction", doses=[-1.0, 0.0], controls=39, seed=seed)
    (own,) = [row for row in doses.select("loss.change", "own - shuffled") if row.dose == -1]
    return p | {"intervene: loss.change": own.p_value}


def main(replicas: int) -> None:
    library()
    for name in ("masked vit", "dinov2"):
        found = [p_values(name, seed) for seed in range(replicas)]
        for quantity in found[0]:
            hits = sum(p[quantity] <= 0.05 for p in found)
            low, high = exact_interval(hits, replicas)
            print(f"{name:12} {quantity:28} {hits / replicas:.3f} [{low:.3f}, {high:.3f}] of {replicas}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
