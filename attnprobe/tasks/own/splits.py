"""Which samples train, validate and test: as the data say, else by shares of every class."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from attnprobe.errors import ArtifactError, shown

Parts = dict[str, np.ndarray]  # train, validation, test -> (n,) int64 numbers of samples, rising

NAMES = {
    "train": ("train", "training", "0"),
    "validation": ("validation", "val", "valid", "dev", "1"),
    "test": ("test", "testing", "2"),
}
PART_OF = {name: part for part, names in NAMES.items() for name in names}
FEWEST = "at least one sample of every part, and two of them to train on"


def by_name(path: Path, named: Sequence[object]) -> Parts:
    """The parts that samples are put into by name (or by 0, 1, 2); only those that occur."""
    found = [PART_OF.get(str(name).strip().lower()) for name in named]
    if None in found:
        row = found.index(None)
        hint = "use train, validation and test, or 0, 1 and 2"
        raise ArtifactError(f"{path}, sample {row + 1} is in a split called {shown(str(named[row]))}", hint=hint)
    parts = np.array(found)
    given = {part: np.flatnonzero(parts == part) for part in NAMES}
    if not len(given["train"]):
        raise ArtifactError(f"{path} has a split, but no sample of it trains", hint="call that part of it 'train'")
    return {part: index for part, index in given.items() if len(index)}


def by_share(
    path: Path, labels: np.ndarray, given: Mapping[str, np.ndarray], validation: float, test: float, seed: int
) -> Parts:
    """All three parts: ``given`` ones as they are, the others drawn by share from what else there is.

    labels: (n,) classes from 0 on. ArtifactError if there are too few samples.
    """
    left = given.get("train", np.arange(len(labels)))
    n, parts = len(left), dict(given)
    seeds = np.random.default_rng(seed).spawn(2)
    for part, share, generator in zip(("test", "validation"), (test, validation), seeds, strict=True):
        if part not in parts:
            chosen = stratified(labels[left], max(1, round(share * n)), generator)
            parts[part], left = left[chosen], left[~chosen]
    parts["train"] = left
    if len(left) < 2 or not all(len(parts[part]) for part in NAMES):
        raise ArtifactError(f"{path} has too few samples: {len(labels)}", hint=f"it takes {FEWEST}")
    return {part: parts[part] for part in NAMES}


def stratified(labels: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """(n,) bool: ``count`` samples, of every class its share, rounded so that the shares add up (largest remainders).

    Of every class at least one sample is not chosen, so fewer than ``count`` are where classes are that small.
    """
    sizes = np.bincount(labels)
    wanted = sizes * min(count, len(labels)) / max(1, len(labels))
    most = np.maximum(sizes - 1, 0)
    take = np.minimum(np.floor(wanted).astype(np.int64), most)
    for c in np.argsort(-(wanted - take), kind="stable"):
        if take.sum() < count and take[c] < most[c]:
            take[c] += 1
    chosen = np.zeros(len(labels), bool)
    for c, number in enumerate(take):
        chosen[generator.permutation(np.flatnonzero(labels == c))[:number]] = True
    return chosen
