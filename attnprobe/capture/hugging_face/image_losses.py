"""What a vision model can be asked to do with images: tell hidden patches, and classes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture.hugging_face.patches import Patches
from attnprobe.capture.hugging_face.text_losses import classes_loss
from attnprobe.capture.subject import Loss
from attnprobe.capture.watching.inputs import Batch
from attnprobe.capture.watching.watched import ForeignLoss
from attnprobe.errors import ConfigError
from attnprobe.streams import stream

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# pyright: reportMissingImports=false

HIDDEN_SHARE = 0.6  # of an image's patches, as SimMIM hides them (Xie et al. 2022)


def hidden_patches(number: int, patches: Patches, seed: int) -> Tensor:
    """(image, patch) bool; depends on seed, image and place alone, as many in every image."""
    draws = stream(seed, "hidden patches").random((number, patches.number))
    most = max(1, round(HIDDEN_SHARE * patches.number))
    return torch.from_numpy(draws.argsort(1).argsort(1) < most)


def masked_patches(hidden: Tensor, patches: Patches) -> ForeignLoss:
    """Absolute error of the pixels of hidden patches by the model's own mask token and head, the mean over them."""

    def prepare(batch: Batch, samples: np.ndarray) -> Batch:
        pixels = batch.kwargs["pixel_values"]
        chosen = hidden[torch.as_tensor(samples)].to(pixels.device)
        return batch.replaced(bool_masked_pos=chosen, targets=(pixels, chosen))

    def of(output: Any, batch: Batch, samples: np.ndarray) -> Loss:
        pixels, chosen = batch.targets
        apart = (patches.split(output.reconstruction) - patches.split(pixels)).abs().mean(-1)
        return _mean_of(apart, chosen)

    return ForeignLoss(of=of, prepare=prepare, what="hidden patches, by the model's own head")


def greyed_patches(hidden: Tensor, patches: Patches, channels: int, width: int, seed: int) -> ForeignLoss:
    """Squared error of the pixels of hidden patches by a linear readout of their last hidden states, mean over them.

    Hidden are those that are grey (0, after the model's own preparation). The readout is drawn anew, N(0, 1 / width):
    it is where training a head of the model would start.
    """
    values = channels * patches.size[0] * patches.size[1]
    weights = stream(seed, "fresh patch readout").standard_normal((width, values)) / width**0.5

    def prepare(batch: Batch, samples: np.ndarray) -> Batch:
        pixels = batch.kwargs["pixel_values"]
        chosen = hidden[torch.as_tensor(samples)].to(pixels.device)
        grey = patches.joined(patches.split(pixels).masked_fill(chosen[..., None], 0.0), pixels)
        return batch.replaced(pixel_values=grey, targets=(pixels, chosen))

    def of(output: Any, batch: Batch, samples: np.ndarray) -> Loss:
        pixels, chosen = batch.targets
        states = output.last_hidden_state[:, -patches.number :]
        predicted = states @ torch.from_numpy(weights).to(states)
        return _mean_of((predicted - patches.split(pixels)).square().mean(-1), chosen)

    return ForeignLoss(of=of, prepare=prepare, what="grey patches, by a readout drawn anew")


def fresh_readout(labels: np.ndarray, patches: Patches, width: int, seed: int) -> ForeignLoss:
    """Cross entropy of the classes from a linear readout of the mean of the patches' last hidden states."""
    weights = stream(seed, "fresh readout").standard_normal((width, 1 + int(labels.max()))) / width**0.5

    def of(output: Any, batch: Batch, samples: np.ndarray) -> Loss:
        states = output.last_hidden_state[:, -patches.number :].mean(1)
        return classes_loss(states @ torch.from_numpy(weights).to(states), labels[samples])

    return ForeignLoss(of=of, what="classes, by a readout drawn anew")


def own_classes(labels: np.ndarray) -> ForeignLoss:
    """Cross entropy of the classes by the model's own classifier; labels: those of the model."""

    def of(output: Any, batch: Batch, samples: np.ndarray) -> Loss:
        return classes_loss(output.logits, labels[samples])

    return ForeignLoss(of=of, what="classes, by the model's own classifier")


def labels_of_model(labels: np.ndarray, names: tuple[str, ...], known: Mapping[str, int]) -> np.ndarray:
    """Of images by the names of their folders: what the model calls so, or its number. ConfigError if there is none."""
    by_name = {name.casefold(): number for name, number in known.items()} | {str(n): n for n in known.values()}
    numbers = [by_name.get(name.casefold()) for name in names]
    strange = [name for name, number in zip(names, numbers, strict=True) if number is None]
    if strange:
        there = ", ".join(sorted(known, key=lambda name: known[name])[:4]) + (" ..." if len(known) > 4 else "")
        reason = f"{', '.join(map(repr, strange[:3]))} are no classes of this model, which knows {there}"
        raise ConfigError(reason, hint=f"call folders by its names, or its numbers 0 to {len(known) - 1}")
    return np.array(numbers, np.int64)[labels]


def attach_last_states(model: "PreTrainedModel") -> None:
    """Its outputs have ``last_hidden_state`` from now on, as those of models without head: after the last norm."""
    seen: list[Tensor] = []

    def keep(_module: Any, _args: Any, output: Any) -> None:
        seen.append(output.last_hidden_state)

    def attach(_module: Any, _args: Any, output: Any) -> None:
        output.last_hidden_state = seen.pop()

    model.base_model.register_forward_hook(keep)
    model.register_forward_hook(attach)


def _mean_of(errors: Tensor, chosen: Tensor) -> Loss:
    """errors (image, patch), over the chosen ones."""
    losses = (errors * chosen).sum(1) / chosen.sum(1)
    return Loss(targets=losses[:, None], of=lambda targets: targets[:, 0])
