"""Where probes take randomness from: every need has a stream of its own, so none changes what another draws."""

import numpy as np


def stream(seed: int, *name: str) -> np.random.Generator:
    """The generator of one named need, such as ``stream(0, "label shuffles")``; the same at every call."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple("/".join(name).encode())))
