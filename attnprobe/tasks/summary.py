"""What is in a data set, in plain numbers."""

from typing import Any

import numpy as np

from attnprobe.tasks.data import Data, Split

BINS = 20


def summarise(data: Data) -> dict[str, Any]:
    """Shapes, balance of the classes, lengths, and a fingerprint of everything."""
    spec = data.spec
    kind = "tokens" if spec.is_tokens else "image" if spec.grid else "signal"
    return {
        "kind": kind,
        "length": spec.length,
        "channels": None if spec.is_tokens else spec.channels,
        "vocabulary": spec.vocabulary,
        "grid": spec.grid,
        "classes": None if spec.regression else spec.classes,
        "class_names": list(spec.class_names),
        "pairs": spec.pairs,
        "splits": {name: summarise_split(split, data) for name, split in data.splits().items()},
        "notes": data.notes,
        "remarks": list(data.remarks),
        "fingerprint": data.fingerprint(),
    }


def summarise_split(split: Split, data: Data) -> dict[str, Any]:
    labels = split.labels.numpy()
    facts: dict[str, Any] = {
        "samples": len(split),
        "shape": list(split.inputs.shape),
        "type": str(split.inputs.dtype).removeprefix("torch."),
        "bytes": split.inputs.numel() * split.inputs.element_size(),
    }
    if data.spec.regression:
        facts["labels"] = five_numbers(labels)
    else:
        facts["class_counts"] = np.bincount(labels, minlength=data.spec.classes).tolist()
    if split.lengths is not None:
        lengths = split.lengths.numpy().ravel()
        counts, edges = np.histogram(lengths, bins=min(BINS, data.spec.length), range=(0, data.spec.length))
        facts["lengths"] = five_numbers(lengths) | {"edges": edges.tolist(), "counts": counts.tolist()}
    return facts


def five_numbers(values: np.ndarray) -> dict[str, float]:
    names = ("min", "lower_quartile", "median", "upper_quartile", "max")
    return dict(zip(names, np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist(), strict=True))
