"""The entry point: every claim, and `verify`, which turns claims into rows of prediction beside measurement."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from theory.claims import (
    blind_subspace,
    class_differences,
    detection,
    invariance,
    position_codes,
    proximity_ray,
    reconstruction,
)
from theory.rows import Row as Row
from theory.setting import Setting


@dataclass(frozen=True, kw_only=True)
class Claim:
    """name: "C1"; title: a few words; rows: the function that checks it at a setting."""

    name: str
    title: str
    rows: Callable[[Setting], list[Row]]


CLAIMS = (
    Claim(name="C1", title="Blind subspace", rows=blind_subspace.rows),
    Claim(name="C2", title="Global blindness on the proximity ray", rows=proximity_ray.rows),
    Claim(name="C3", title="Labels never start to look around", rows=invariance.rows),
    Claim(name="C4", title="Reconstruction sees the autocorrelation", rows=reconstruction.rows),
    Claim(
        name="C5",
        title="Labels see class differences, reconstruction the pooled statistic",
        rows=class_differences.rows,
    ),
    Claim(name="C6", title="The price of detection", rows=detection.rows),
    Claim(name="C7", title="Position codes become proximity-biased scores", rows=position_codes.rows),
)


def verify(
    *,
    claims: Sequence[str] | None = None,
    length: int = 64,
    dim: int = 5,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> list[Row]:
    """Check claims (all of them by default, else by name, such as ["C1", "C4"]) and return their rows.

    length: L, 3 to 512; dim: d, 1 to 64; seed: a non-negative integer. progress: called with "C1  Blind subspace"
    before each claim. The same arguments give the same rows. Raises ValueError naming the offending argument.
    """
    setting = Setting(length=length, dim=dim, seed=seed)
    found: list[Row] = []
    for claim in select(claims):
        if progress is not None:
            progress(f"{claim.name}  {claim.title}")
        found += claim.rows(setting)
    return found


def select(names: Sequence[str] | None) -> tuple[Claim, ...]:
    """The named claims in the order of CLAIMS; all of them for None. Raises ValueError for an unknown or no name."""
    if names is None:
        return CLAIMS
    known = [claim.name for claim in CLAIMS]
    wanted = [names] if isinstance(names, str) else list(names)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ValueError(f"claims = {', '.join(map(str, unknown)) or 'none'}: expected some of {', '.join(known)}")
    return tuple(claim for claim in CLAIMS if claim.name in wanted)
