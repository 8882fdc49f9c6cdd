"""Many questions at once."""

import numpy as np


def holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values that hold the chance of any false rejection, under any dependence (Holm 1979)."""
    order = np.argsort(p)
    steps = p[order] * (len(p) - np.arange(len(p)))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(steps).clip(max=1.0) if len(p) else steps
    return adjusted
