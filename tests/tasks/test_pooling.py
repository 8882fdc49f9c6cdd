import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.errors import ConfigError
from attnprobe.tasks.derived.pooling import require_downsample, require_side, shorten


@given(st.integers(1, 17), st.integers(1, 5), st.sampled_from(["uint8", "int16", "float32"]), st.data())
def test_signals_against_a_plain_loop(length: int, factor: int, dtype: str, data: st.DataObject) -> None:
    factor = min(factor, length)
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = generator.integers(0, 256, (3, length, 2)).astype(dtype)
    expected = np.stack([values[:, i * factor : (i + 1) * factor].mean(1) for i in range(length // factor)], 1)
    found = shorten(values, factor, axes=(1,))
    assert (found.dtype, found.shape) == (values.dtype, (3, length // factor, 2))
    tolerance = 0.5 if dtype != "float32" else 1e-4
    assert np.abs(found - expected).max() <= tolerance


def test_images_are_averaged_over_squares() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), np.uint8)
    found = shorten(images, 3, axes=(1, 2))
    assert found.shape == (2, 2, 2, 3)
    assert found[1, 0, 1, 2] == round(images[1, 0:3, 3:6, 2].mean())


def test_a_factor_of_one_is_not_even_a_copy() -> None:
    values = np.zeros((2, 5), np.uint8)
    assert shorten(values, 1, axes=(1,)) is values


def test_impossible_sizes_are_refused() -> None:
    for side in (1, 3, 33, 64):
        with pytest.raises(ConfigError, match="side must be one of 2, 4, 8, 16, 32, got"):
            require_side(side, 32)
    for factor in (0, 38):
        with pytest.raises(ConfigError, match="downsample must lie between 1 and 37"):
            require_downsample(factor, 37)
