"""The NumPy drawing rules against Pillow, which drew the published images, and SciPy's dilation."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from attnprobe.tasks.pathfinder import drawing

SIZE, CENTRE = 41, 20


def ends(length: int) -> np.ndarray:
    angles = np.deg2rad(np.arange(-180, 180))
    return np.ceil(CENTRE + length * np.stack([np.sin(angles), np.cos(angles)], -1)).astype(int)


def pillow_line(end: np.ndarray, width: int) -> np.ndarray:
    image = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(image).line([(CENTRE, CENTRE), (int(end[1]), int(end[0]))], fill=255, width=width)
    return np.asarray(image) > 0


@pytest.mark.parametrize(("length", "width"), [(2, 1), (4, 1), (7, 1), (10, 1), (10, 2), (10, 3), (12, 4), (9, 5)])
def test_lines_are_pillows(length: int, width: int) -> None:
    drawn = drawing.lines(SIZE, CENTRE, ends(length), width)
    expected = np.stack([pillow_line(end, width) for end in ends(length)])
    assert np.array_equal(drawn, expected)


@pytest.mark.parametrize(("large", "size"), [(17, 9), (41, 21), (64, 32), (12, 12), (37, 11)])
def test_reduction_is_pillows(large: int, size: int) -> None:
    drawings = np.random.default_rng(large).random((5, large, large)) < 0.4
    expected = [
        np.asarray(Image.fromarray(d.astype(np.uint8) * 255).resize((size, size), Image.Resampling.LANCZOS))
        for d in drawings
    ]
    assert abs(drawing.reduce(drawings, size).astype(int) - np.stack(expected)).max() <= 1


def test_lanczos_rows_sum_to_one() -> None:
    assert np.allclose(drawing.lanczos(23, 7).sum(1), 1)


@pytest.mark.parametrize("radius", [1, 2, 3, 6])
def test_dilation_is_scipys(radius: int) -> None:
    drawings = np.random.default_rng(radius).random((3, 23, 23)) < 0.02
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    footprint = y**2 + x**2 <= radius**2
    expected = np.stack([ndimage.binary_dilation(d, footprint) for d in drawings])
    assert np.array_equal(drawing.dilate(drawings, radius), expected)


def test_stretching_fills_the_range_of_bytes() -> None:
    images = np.array([[[0.0, 1.0], [2.0, 0.5]], [[0.1, 0.1], [0.1, 0.3]]])
    assert drawing.stretch(images).tolist() == [[[0, 128], [255, 64]], [[0, 0], [0, 255]]]
