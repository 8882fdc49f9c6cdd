"""What the runs of an arm reach on average, and what one arm gains over another.

Runs are the contents of their result.json, as ``launch`` returns them and ``ap.load_run(...).result`` has them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from attnprobe.errors import ConfigError
from attnprobe.statistics.intervals import Interval, student_interval

Result = dict[str, Any]
AVERAGED = ("train_accuracy", "validation_accuracy", "test_accuracy", "seconds")


def means(results: Sequence[Result]) -> dict[str, float]:
    """Accuracy on every split and seconds, over the runs of an arm."""
    return {number: float(np.mean([result[number] for result in results])) for number in AVERAGED}


def differences(
    treated: Sequence[Result], control: Sequence[Result], number: str = "test_accuracy"
) -> dict[int, float]:
    """Seed -> a number of the treated run minus that of the control's; ConfigError unless the runs are pairs."""
    own, other = ({result["seed"]: result[number] for result in results} for results in (treated, control))
    if own.keys() != other.keys() or len({len(own), len(other), len(treated), len(control)}) > 1:
        raise ConfigError("the runs are no pairs", hint="both arms need one run of each seed, and no more")
    return {seed: own[seed] - other[seed] for seed in own}


def gain(
    treated: Sequence[Result], control: Sequence[Result], number: str = "test_accuracy", *, level: float = 0.95
) -> Interval:
    """What the treated arm gains, paired by seed, with Student's interval; one seed has no bounds (NaN)."""
    found = differences(treated, control, number)
    return student_interval(list(found.values()), level=level, unit=number.replace("_", " "))
