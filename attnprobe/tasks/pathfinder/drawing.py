"""Small grey drawings as the makers of Pathfinder drew them: fine lines and disks, reduced by a Lanczos filter.

The published images went through Pillow's line and Lanczos routines and through SciPy image functions that stretched
every array to 0 .. 255 and returned bytes. Here are the same rules in NumPy, for many drawings at a time.
"""

import numpy as np

LOBES = 3  # of the Lanczos kernel, on each side


def lines(size: int, centre: int, ends: np.ndarray, width: int) -> np.ndarray:
    """Lines from the pixel (centre, centre) to the pixels ``ends`` (n, 2), as (n, size, size) booleans."""
    dy, dx = (ends - centre).T[:, :, None, None]
    y, x = np.mgrid[:size, :size] - centre
    return _thin(y, x, dy, dx) if width == 1 else _wide(y, x, dy, dx, width)


def _thin(y: np.ndarray, x: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> np.ndarray:
    """Bresenham's line: one pixel per step along the longer axis, half steps away from the start."""
    steep = abs(dy) > abs(dx)
    run, rise = np.where(steep, dy, dx), np.where(steep, dx, dy)
    along, across = np.where(steep, y, x) * np.sign(run), np.where(steep, x, y) * np.where(rise < 0, -1, 1)
    off = 2 * (across * abs(run) - along * abs(rise))  # from the ideal line, in units of half a pixel / run
    return (along >= 0) & (along <= abs(run)) & (off > -abs(run)) & (off <= abs(run))


def _wide(y: np.ndarray, x: np.ndarray, dy: np.ndarray, dx: np.ndarray, width: int) -> np.ndarray:
    """A quadrilateral with corners rounded to pixels; each row is filled between the pixels nearest to its sides."""
    half, length = (width - 1) / 2, np.hypot(dy, dx)
    less, more = np.ceil(half - 0.5) / length, np.floor(half + 0.5) / length
    left, right = _round(less * dy, np.ceil, -0.5), _round(more * dy, np.ceil, -0.5)
    below, above = _round(more * dx, np.floor, 0.5), _round(less * dx, np.floor, 0.5)
    corners = [(below, -left), (dy + below, dx - left), (dy - above, dx + right), (-above, right)]
    edges = list(zip(corners, corners[1:] + corners[:1], strict=True))
    turn = np.sign(sum(py * qx - px * qy for (py, px), (qy, qx) in edges))
    inside = (y >= np.minimum.reduce([p[0] for p in corners])) & (y <= np.maximum.reduce([p[0] for p in corners]))
    for (py, px), (qy, qx) in edges:
        side = (qx - px) * (y - py) - (qy - py) * (x - px)
        inside &= (turn * side < 0.5 * abs(qy - py)) | (qy == py)  # a tie belongs to neither of two pixels
    return inside


def _round(value: np.ndarray, rule: np.ufunc, shift: float) -> np.ndarray:
    """Nearest integers; halves go away from zero (floor, +1/2) or towards it (ceil, -1/2)."""
    return np.sign(value) * rule(abs(value) + shift)


def dilate(drawings: np.ndarray, radius: int) -> np.ndarray:
    """Booleans (n, size, size), each True pixel grown to a disk of ``radius`` pixels."""
    size = drawings.shape[1]
    padded = np.pad(drawings, ((0, 0), (radius, radius), (radius, radius)))
    shifted = [padded[:, radius + y : radius + y + size, radius + x : radius + x + size] for y, x in disk(radius)]
    return np.logical_or.reduce(shifted)


def disk(radius: float) -> np.ndarray:
    """Offsets (n, 2) of the pixels at most ``radius`` away."""
    reach = int(radius)
    offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
    return offsets[(offsets**2).sum(1) <= radius**2]


def reduce(drawings: np.ndarray, size: int) -> np.ndarray:
    """Booleans (n, large, large) as grey levels (n, size, size) of type uint8, 255 = True, rounded after each axis."""
    kernel = lanczos(drawings.shape[1], size)
    rows = _grey(drawings * 255.0 @ kernel.T)
    return _grey(kernel @ rows).astype(np.uint8)


def lanczos(large: int, size: int) -> np.ndarray:
    """Weights (size, large) of a Lanczos reduction by large / size; every row sums to one."""
    scale = large / size
    centre = (np.arange(size)[:, None] + 0.5) * scale
    distance = (np.arange(large) + 0.5 - centre) / scale
    weights = np.sinc(distance) * np.sinc(distance / LOBES) * (abs(distance) < LOBES)
    return weights / weights.sum(1, keepdims=True)


def _grey(values: np.ndarray) -> np.ndarray:
    return np.floor(values.round(6) + 0.5).clip(0, 255)  # sums may differ in their last bits between machines


def stretch(images: np.ndarray) -> np.ndarray:
    """Images (n, height, width) as bytes: the darkest pixel of each becomes 0 and the brightest 255."""
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    return ((images - low) * (255 / (high - low)) + 0.5).astype(np.uint8)
