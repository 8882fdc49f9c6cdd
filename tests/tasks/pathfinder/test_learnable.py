"""Can the classes of Pathfinder be learned from the images at all? A plain convolutional network says.

The larger test takes minutes, so only when asked for:
ATTNPROBE_TEST_LEARNABLE=1 pytest -n0 -s tests/tasks/pathfinder/test_learnable.py
"""

import os
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import Tensor, nn

from attnprobe.tasks.pathfinder.task import Pathfinder

N_TRAIN, N_TEST = 20_000, 6_000
BATCH, PEAK_RATE = 64, 1e-2
WIDTHS = (16, 32, 64)


def plain_network() -> nn.Sequential:
    """Two 3 x 3 convolutions before each halving of the image, the largest value of every channel, a linear layer."""
    layers: list[nn.Module] = []
    before = 1
    for width in WIDTHS:
        for wide in (before, width):
            layers += [nn.Conv2d(wide, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        before = width
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(before, 2))


def train(model: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.01)
    steps = epochs * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    for epoch in range(epochs):
        started, total = time.perf_counter(), 0.0
        for batch in torch.randperm(len(labels), generator=generator).split(BATCH)[: len(labels) // BATCH]:
            loss = F.cross_entropy(model(inputs[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * BATCH
        print(f"epoch {epoch + 1}/{epochs}: loss {total / len(labels):.3f}, {time.perf_counter() - started:.0f} s")


@torch.no_grad()
def count_correct(model: nn.Module, inputs: Tensor, labels: Tensor) -> int:
    model.eval()
    return sum(
        int((model(part).argmax(1) == of).sum()) for part, of in zip(inputs.split(500), labels.split(500), strict=True)
    )


def lower_bound(task: Pathfinder, epochs: int) -> float:
    """Of the 95 % interval of the accuracy on test images, after so many epochs."""
    data = task.load()
    images = [(s.inputs.float().view(-1, 1, 32, 32) - 127.5) / 127.5 for s in (data.train, data.test)]
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the layers of nn know no generator of their own
        model = plain_network()
    train(model, images[0], data.train.labels, epochs)
    correct = count_correct(model, images[1], data.test.labels)
    interval = binomtest(correct, len(data.test)).proportion_ci(method="wilson")
    share = correct / len(data.test)
    print(f"test accuracy {share:.3f} [{interval.low:.3f}, {interval.high:.3f}], {len(data.test)} images")
    return interval.low


@pytest.mark.slow
def test_a_plain_network_learns_the_images_of_the_small_preset() -> None:
    assert lower_bound(Pathfinder(contour_length=3, n_train=4000, n_validation=64, n_test=2000), epochs=3) > 0.85


@pytest.mark.skipif(
    "ATTNPROBE_TEST_LEARNABLE" not in os.environ, reason="takes minutes; set ATTNPROBE_TEST_LEARNABLE=1"
)
def test_a_plain_network_learns_the_easy_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path))  # where so many images are kept
    assert lower_bound(Pathfinder(contour_length=6, n_train=N_TRAIN, n_validation=64, n_test=N_TEST), epochs=12) > 0.85
