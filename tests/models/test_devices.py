"""Every mixer in float32 beside float64; what tests/gpu does on a GPU, done on the CPU."""

import pytest
import torch

from tests.models.devices import CASES, TOLERANCE, error


@pytest.mark.parametrize(("name", "causal"), CASES)
def test_float32_computes_what_float64_does(name: str, causal: bool) -> None:
    assert error(name, torch.device("cpu"), causal=causal) < TOLERANCE
