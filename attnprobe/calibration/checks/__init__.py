"""What every probe promises, by the name of the probe."""

from collections.abc import Callable

from attnprobe.calibration.checks import (
    alignment,
    blindness,
    control,
    decomposition,
    interventions,
    kernels,
    proximity,
    trajectory,
)
from attnprobe.calibration.outcomes import Outcome
from attnprobe.calibration.worlds import Cell, Replica

Check = Callable[[Replica], list[Outcome]]

CHECKS: dict[str, Check] = {
    "control": control.check,
    "proximity": proximity.check,
    "decompose": decomposition.check,
    "alignment": alignment.check,
    "certify": blindness.check,
    "intervene": interventions.check,
    "kernels": kernels.check,
    "trajectory": trajectory.check,
}

ASKED: dict[str, Callable[[Cell], bool]] = {"kernels": kernels.asked, "trajectory": trajectory.asked}  # else everywhere
