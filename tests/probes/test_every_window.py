"""Every probe of scores on attention in windows, against dense attention under the same mask, in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from attnprobe.capture import ours
from attnprobe.capture.ours import Ours
from attnprobe.capture.subject import Subject
from attnprobe.config import build
from attnprobe.errors import NotApplicableError
from attnprobe.models import Attention, TransformerConfig, make_model
from attnprobe.models.mixers.block_local import BlockLocal
from attnprobe.probes import alignment, blindness, decomposition, interventions
from attnprobe.probes.blindness.directions import default_claims
from attnprobe.probes.rows import rows_to_records
from attnprobe.probes.trajectory import Trajectory
from attnprobe.tasks import Spec, Split

LENGTH, SAMPLES = 17, 12

CASES: dict[str, dict[str, Any]] = {
    "blocks": {"mixer": {"name": "block_local", "window": 4}},
    "sliding": {"mixer": {"name": "block_local", "window": 5, "sliding": True}, "positions": "rotary"},
    "causal blocks": {"mixer": {"name": "block_local", "window": 3}, "causal": True, "readout": "last"},
    "beside a state space": {"mixer": {"name": "spade", "window": 5, "states": 4}},
}


def subject(**settings: Any) -> Ours:
    """Padded sequences, some shorter than a window."""
    table = {"d_model": 12, "heads": 3, "layers": 2, "d_mlp": 7, **settings}
    spec = Spec(length=LENGTH, classes=3, channels=2)
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(SAMPLES, LENGTH, 2, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([17, 17, 9, 3, 9, 17, 3, 17, 17, 9, 17, 3])
    model = make_model(build(TransformerConfig, table), spec, "values", seed=0).double()
    return ours.of(model, Split(inputs=inputs, labels=torch.arange(SAMPLES) % 3, lengths=lengths))


def aligned(made: Subject) -> list[dict[str, Any]]:
    return alignment.measure(made, shuffles=39, orders=19, groups=4).records("")


def aligned_with_phases(made: Subject) -> list[dict[str, Any]]:
    return alignment.measure(made, shuffles=39, null="phase", orders=39, groups=1, method="dense").records("")


def certified(made: Subject) -> list[dict[str, Any]]:
    claims = [c for c in default_claims(made.space, 0) if c.direction.name in ("contrast r=2", "random visible")]
    found = blindness.measure(made, claims=claims, stepped=6, shuffles=199)
    measured = [row for row in found.rows if row.agrees is not None]
    assert measured
    assert all(row.agrees for row in measured)
    return rows_to_records(found.rows, "", "direction", "family")


PROBES: dict[str, Callable[[Subject], list[dict[str, Any]]]] = {
    "alignment": aligned,
    "alignment, phases": aligned_with_phases,
    "intervene": lambda made: interventions.dose_response(made, doses=(-1.0, 0.0, 2.0), controls=3).records(""),
    "decompose": lambda made: rows_to_records(decomposition.measure(made).rows, ""),
    "certify": certified,
    "trajectory": lambda made: Trajectory(sequences=9).measure(made),
}


def compare(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Names are equal, numbers up to rounding."""
    assert len(found) == len(wanted) > 0
    for mine, other in zip(found, wanted, strict=True):
        assert mine.keys() == other.keys()
        for key, value in mine.items():
            if isinstance(value, float):
                rtol = 1e-6 if mine["quantity"] == "curvature" else 1e-9  # differences of differences
                np.testing.assert_allclose(value, other[key], rtol=rtol, atol=1e-9, err_msg=f"{key} of {mine}")
            else:
                assert value == other[key], key


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("probe", PROBES)
def test_what_is_measured_is_that_of_dense_attention_under_the_mask(probe: str, case: str, monkeypatch) -> None:
    made = subject(**CASES[case])
    assert made.space.layout.reach is not None
    found = PROBES[probe](made)
    monkeypatch.setattr(BlockLocal, "attend", Attention.attend)  # a length x length mask
    compare(found, PROBES[probe](subject(**CASES[case])))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("probe", PROBES)
def test_windows_that_hold_all_change_nothing(probe: str, causal: bool) -> None:
    windowed = subject(mixer={"name": "block_local", "window": LENGTH}, causal=causal)
    plain = subject(causal=causal)
    state = {name.replace(".attention.", ".block_local."): t for name, t in plain.model.state_dict().items()}
    windowed.model.load_state_dict(state)
    compare(PROBES[probe](windowed), PROBES[probe](plain))


@pytest.mark.parametrize("probe", PROBES)
def test_blocks_behind_a_class_token_are_refused(probe: str) -> None:
    """They are counted with the token in them, so they do not lie among the positions as a layout says."""
    made = subject(mixer={"name": "block_local", "window": 4}, readout="token")
    if probe == "trajectory":
        assert PROBES[probe](made) == []
        return
    with pytest.raises(NotApplicableError, match="lets positions see others than all") as caught:
        PROBES[probe](made)
    assert "class token" in (caught.value.hint or "")
