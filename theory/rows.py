"""One line of the verification: what is predicted, what is measured, and whether the two agree."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A prediction beside its measurement.

    claim: its name, "C1".
    quantity: what is compared, with the size that was used where it is not the requested one.
    predicted, measured: the two numbers; of arrays, their Euclidean norms.
    error: |measured - predicted|; of arrays, the Euclidean norm of the difference.
    tolerance: what the error may be; in a control, what it must exceed.
    control: True for a negative control, in which an assumption is broken: it passes when the prediction FAILS.
    passed: the verdict.
    note: how the row is judged, in one line.
    """

    claim: str
    quantity: str
    predicted: float
    measured: float
    error: float
    tolerance: float
    control: bool
    passed: bool
    note: str = ""


def agree(claim: str, quantity: str, predicted: object, measured: object, tolerance: float, note: str) -> Row:
    """A row that passes when prediction and measurement (numbers, or arrays of one shape) agree within `tolerance`."""
    return _row(claim, quantity, predicted, measured, tolerance, note, control=False)


def differ(claim: str, quantity: str, predicted: object, measured: object, margin: float, note: str) -> Row:
    """A negative control: it passes when the measurement misses the prediction by more than `margin`."""
    return _row(claim, quantity, predicted, measured, margin, note, control=True)


def _row(
    claim: str, quantity: str, predicted: object, measured: object, tolerance: float, note: str, *, control: bool
) -> Row:
    a, b = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    # Shapes must match: broadcasting would compare an array with something that it is not.
    assert a.shape == b.shape, f"{quantity}: shapes {a.shape} and {b.shape}"
    error = float(np.linalg.norm(b - a))
    values = [float(a), float(b)] if a.ndim == 0 else [float(np.linalg.norm(a)), float(np.linalg.norm(b))]
    assert all(map(math.isfinite, [*values, error, tolerance])), f"{quantity}: not finite"
    tolerance = float(tolerance)
    passed = error > tolerance if control else error <= tolerance
    return Row(
        claim=claim,
        quantity=quantity,
        predicted=values[0],
        measured=values[1],
        error=error,
        tolerance=tolerance,
        control=control,
        passed=passed,
        note=note,
    )


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many rows of one claim pass; largest: of predictions, the largest error as a share of its tolerance."""

    predictions: int
    predictions_passed: int
    controls: int
    controls_passed: int
    largest: float

    @property
    def passed(self) -> bool:
        return (self.predictions_passed, self.controls_passed) == (self.predictions, self.controls)


def count(rows: Iterable[Row]) -> Count:
    """Of the rows of one claim."""
    rows = list(rows)
    predictions, controls = ([row for row in rows if row.control == control] for control in (False, True))
    return Count(
        predictions=len(predictions),
        predictions_passed=sum(row.passed for row in predictions),
        controls=len(controls),
        controls_passed=sum(row.passed for row in controls),
        largest=max((row.error / row.tolerance for row in predictions if row.tolerance), default=0.0),
    )
