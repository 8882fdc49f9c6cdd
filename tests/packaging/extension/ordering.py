"""The mean of squares is not below the square of the mean."""

import numpy as np

from theory.rows import Row, agree, differ
from theory.setting import Setting


def rows(setting: Setting) -> list[Row]:
    x = np.random.default_rng(setting.seed).standard_normal(setting.length)
    variance, gap = x.var(), (x**2).mean() - x.mean() ** 2
    return [
        agree("C99", "gap", variance, gap, 1e-12, "it is the variance"),
        differ("C99", "gap of other numbers", variance, gap + 1, 1e-3, "one more"),
    ]
