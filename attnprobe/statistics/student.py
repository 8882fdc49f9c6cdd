"""How far a mean of normal numbers may be from the truth, from a standard error that is itself estimated."""

from typing import Any

from scipy import stats


def margin(error: Any, degrees: Any, *, level: float) -> Any:
    """Half the two-sided Student's t interval at ``level`` around an estimate with this standard error, whose variance
    has so many degrees of freedom; arrays are taken entry by entry.
    """
    return stats.t.isf((1 - level) / 2, degrees) * error


def p_value(estimate: Any, error: Any, degrees: Any) -> Any:
    """Two-sided, of a true value of zero, by the same distribution."""
    return 2 * stats.t.sf(abs(estimate) / error, degrees)
