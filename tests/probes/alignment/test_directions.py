"""Directions against dense matrices built by loops from the definition, kept here only."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.scores.directions import Direction, Projector, ScoreSpace
from attnprobe.scores.distance_profiles import contrast, contrast_profile, random_phases
from attnprobe.scores.layout import Layout
from attnprobe.scores.named import named_directions
from tests.probes.seeing import sees

SPACES = {
    "line": ScoreSpace(layout=Layout(shape=(11,))),
    "causal line": ScoreSpace(layout=Layout(shape=(11,), causal=True)),
    "grid": ScoreSpace(layout=Layout(shape=(3, 5))),
    "causal grid": ScoreSpace(layout=Layout(shape=(3, 5), causal=True)),
    "class token": ScoreSpace(layout=Layout(shape=(7,)), leading=1),
    "windows": ScoreSpace(layout=Layout(shape=(11,), window=3)),
    "causal blocks": ScoreSpace(layout=Layout(shape=(11,), block=3, causal=True)),
    "windows on a grid": ScoreSpace(layout=Layout(shape=(3, 5), window=6)),
    "windows and class token": ScoreSpace(layout=Layout(shape=(7,), window=4), leading=1),
    "grid and class token": ScoreSpace(layout=Layout(shape=(5, 3)), leading=1),
}


def place(space: ScoreSpace, position: int) -> tuple[int, ...]:
    return (position,) if len(space.layout.shape) == 1 else divmod(position, space.layout.shape[1])


def dense(space: ScoreSpace, value, layer: int = 0, head: int = 0) -> Tensor:
    """Row-centred, unit norm, zero at class tokens and hidden keys; value(query, key, offset) -> number."""
    matrix = torch.zeros(space.size, space.size, dtype=torch.float64)
    for i in range(space.length):
        keys = [j for j in range(space.length) if sees(space.layout, i, j)]
        row = []
        for j in keys:
            offset = tuple(b - a for a, b in zip(place(space, i), place(space, j), strict=True))
            row.append(value(i, j, offset))
        for j, entry in zip(keys, row, strict=True):
            matrix[i + space.leading, j + space.leading] = entry - sum(row) / len(row)
    return matrix / matrix.norm()


def definitions(space: ScoreSpace) -> dict[str, object]:
    near = (1,) if len(space.layout.shape) == 1 else (-1, 2)
    near = (-2,) if space.layout.causal and len(near) == 1 else near
    found = {
        f"offset {near[0] if len(near) == 1 else near}": lambda i, j, offset: float(offset == near),
        "proximity r=2": lambda i, j, offset: math.exp(-math.hypot(*offset) / 2),
        "contrast r=2": lambda i, j, offset: math.exp(-math.hypot(*offset) / 2) if i != j else own_value(space, 2.0),
    }
    if len(space.layout.shape) == 1:
        return found | {"key position": lambda i, j, offset: float(j)}
    return found | {
        "key row": lambda i, j, offset: float(place(space, j)[0]),
        "key column": lambda i, j, offset: float(place(space, j)[1]),
    }


def own_value(space: ScoreSpace, radius: float) -> float:
    """Of a position with itself, such that the diagonal of the centred rows sums to zero."""
    gained = lost = 0.0
    for i in range(space.length):
        keys = [j for j in range(space.length) if sees(space.layout, i, j)]
        others = [math.dist(place(space, i), place(space, j)) for j in keys if j != i]
        lost += sum(math.exp(-distance / radius) for distance in others) / len(keys)
        gained += 1 - 1 / len(keys)
    return lost / gained


def every_direction(space: ScoreSpace) -> list[Direction]:
    proximity = [d for d in named_directions(space, along="proximity") if d.name.startswith("proximity")]
    return [*named_directions(space), *proximity]


@pytest.mark.parametrize("name", SPACES)
def test_contrast_profiles_leave_the_diagonal_alone_on_average(name: str) -> None:
    space = SPACES[name]
    projector = Projector(space, every_direction(space), layers=1, heads=1)
    for radius in (1, 2, 4):
        contrast, proximity = (projector.matrix(f"{kind} r={radius}")[0, 0] for kind in ("contrast", "proximity"))
        diagonal = contrast.diagonal()[space.leading :]
        assert float(diagonal.mean()) == pytest.approx(0, abs=1e-14)
        assert float(diagonal.abs().max()) < 0.5 * float(proximity.diagonal()[space.leading :].abs().max())


@pytest.mark.parametrize("name", SPACES)
def test_random_phases_keep_the_spectrum_but_for_the_diagonal(name: str) -> None:
    layout = SPACES[name].layout
    profile = contrast_profile(layout, 2.0)
    noise = torch.randn(profile.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = random_phases(profile, noise, layout)
    assert torch.equal(found, contrast(found, layout))
    own = tuple(size - 1 for size in layout.shape)
    rest = found.clone()
    rest[own] = 0.0
    before = math.sqrt(max(0.0, float(profile.square().sum() - rest.square().sum())))  # Parseval
    spectra = []
    for value in (before, -before):
        rest[own] = value
        spectra.append(torch.fft.fftn(rest).abs())
    assert any(torch.allclose(s, torch.fft.fftn(profile).abs(), atol=1e-7) for s in spectra)
    assert float((found * profile).sum() / found.norm() / profile.norm()) < 0.9


@pytest.mark.parametrize("name", SPACES)
def test_named_directions_are_what_their_names_say(name: str) -> None:
    space = SPACES[name]
    projector = Projector(space, every_direction(space), layers=2, heads=3)
    for direction, value in definitions(space).items():
        found = projector.matrix(direction).expand(2, 3, -1, -1)[1, 2]
        assert torch.allclose(found, dense(space, value), atol=1e-14), direction


@pytest.mark.parametrize("name", SPACES)
def test_all_directions_are_centred_of_unit_norm_and_blind_to_the_class_token(name: str) -> None:
    space = SPACES[name]
    projector = Projector(space, named_directions(space), layers=1, heads=1)
    for direction in projector.names:
        matrix = projector.matrix(direction)[0, 0]
        assert float(matrix.norm()) == pytest.approx(1, abs=1e-12)
        assert float(matrix.sum(-1).abs().max()) < 1e-13
        if space.leading:
            assert not matrix[0].any()
            assert not matrix[:, 0].any()
        if space.layout.causal:
            assert not matrix.triu(1).any()


@pytest.mark.parametrize("rows", [1, 4, 100])
@pytest.mark.parametrize("name", SPACES)
def test_projection_is_the_inner_product_with_the_dense_direction(name: str, rows: int) -> None:
    space = SPACES[name]
    generator = torch.Generator().manual_seed(0)
    profile = torch.randn(2, 3, *space.layout.offsets, generator=generator, dtype=torch.float64)
    matrix = torch.randn(2, 3, space.length, space.length, generator=generator, dtype=torch.float64)
    mine = [Direction(name="my matrix", matrix=matrix), Direction(name="my profile", profile=profile)]
    projector = Projector(space, [*mine, *named_directions(space)], layers=2, heads=3)
    # Rows that do not sum to zero, as over the sequence alone when there is a class token.
    full = torch.randn(2, 5, 3, space.size, space.size, generator=generator, dtype=torch.float64)
    visible = space.visible(slice(0, space.length))
    content = full[..., space.leading :, space.leading :] * visible
    if not space.leading:
        content = (content - content.sum(-1, keepdim=True) / visible.sum(-1, keepdim=True)) * visible
    found = torch.zeros(2, 5, 3, len(projector.names), dtype=torch.float64)
    for layer in range(2):
        for block in space.row_blocks(rows):
            part = content[layer][..., block, :]
            found[layer] += projector.project(part, space.fold(part, block), layer, block)
    for d, direction in enumerate(projector.names):
        known = projector.matrix(direction).expand(2, 3, -1, -1)[..., space.leading :, space.leading :]
        assert torch.allclose(found[..., d], (content * known[:, None]).sum((-2, -1)), atol=1e-12), direction


@given(height=st.integers(1, 4), width=st.integers(2, 5), first=st.integers(0, 3), seed=st.integers(0, 99))
def test_fold_is_the_adjoint_of_expand(height: int, width: int, first: int, seed: int) -> None:
    space = ScoreSpace(layout=Layout(shape=(height, width)))
    rows = space.row_blocks(width)[min(first, height - 1)]
    generator = torch.Generator().manual_seed(seed)
    profile = torch.randn(3, *space.layout.offsets, generator=generator, dtype=torch.float64)
    block = torch.randn(3, width, space.length, generator=generator, dtype=torch.float64)
    left = (space.expand(profile, rows) * block).sum()
    assert float(left) == pytest.approx(float((profile * space.fold(block, rows)).sum()), abs=1e-12)


def padded_dense(space: ScoreSpace, raw: Tensor, valid: Tensor) -> Tensor:
    """The matrix (length, length), centred and of unit norm over real pairs alone, by loops."""
    matrix = torch.zeros_like(raw)
    for i in valid.nonzero().flatten().tolist():
        keys = [j for j in valid.nonzero().flatten().tolist() if sees(space.layout, i, j)]
        for j in keys:
            matrix[i, j] = raw[i, j] - raw[i, keys].mean()
    norm = matrix.norm()
    return matrix / norm if norm > 1e-9 else torch.zeros_like(matrix)


@pytest.mark.parametrize("name", SPACES)
def test_padded_sequences_are_projected_on_directions_over_their_real_pairs(name: str) -> None:
    space = SPACES[name]
    generator = torch.Generator().manual_seed(0)
    profile = torch.randn(2, 3, *space.layout.offsets, generator=generator, dtype=torch.float64)
    matrix = torch.randn(2, 3, space.length, space.length, generator=generator, dtype=torch.float64)
    mine = [Direction(name="my matrix", matrix=matrix), Direction(name="my profile", profile=profile)]
    projector = Projector(space, [*mine, *named_directions(space)], layers=2, heads=3)
    lengths = torch.tensor([space.length, 5, 2, 1])
    valid = torch.arange(space.length) < lengths[:, None]
    valid = torch.cat([valid, torch.rand(2, space.length, generator=generator) < 0.6])
    fitted = projector.fitted(valid)
    assert fitted is not None
    visible = space.visible(slice(0, space.length)) & valid[:, None, None] & valid[:, None, :, None]
    gradient = torch.randn(2, 6, 3, *visible.shape[-2:], generator=generator, dtype=torch.float64) * visible
    if not space.leading:
        gradient = (gradient - gradient.sum(-1, keepdim=True) / visible.sum(-1, keepdim=True).clamp(min=1)) * visible
    for layer in range(2):
        found = torch.zeros(6, 3, len(projector.names), dtype=torch.float64)
        for rows in space.row_blocks(4):
            part = gradient[layer][..., rows, :]
            found += projector.project(part, space.fold(part, rows), layer, rows, fitted)
        for d, direction in enumerate(projector.directions):
            raw = direction.block(space, slice(0, space.length)).double().expand(2, 3, -1, -1)
            for sequence, head in itertools.product(range(6), range(3)):
                known = padded_dense(space, raw[layer, head], valid[sequence])
                wanted = float((gradient[layer, sequence, head] * known).sum())
                assert float(found[sequence, head, d]) == pytest.approx(wanted, abs=1e-11), direction.name
    assert projector.fitted(torch.ones(3, space.length, dtype=torch.bool)) is None


def test_directions_of_another_geometry_are_refused() -> None:
    space = SPACES["grid"]
    shapes = {"profile": torch.ones(29), "matrix": torch.ones(7, 7), "factors": (torch.ones(15), torch.ones(14))}
    for form, values in shapes.items():
        with pytest.raises(ConfigError, match=r"direction 'x' has shape .* need"):
            Projector(space, [Direction(name="x", **{form: values})], layers=1, heads=1)
    with pytest.raises(ConfigError, match="has shape"):
        Projector(space, [Direction(name="x", matrix=torch.ones(2, 4, 15, 15))], layers=2, heads=3)


def test_single_offsets_stay_within_reach_and_what_causality_allows() -> None:
    space = SPACES["causal line"]
    names = [d.name for d in named_directions(space, reach=3)]
    assert [n for n in names if n.startswith("offset")] == ["offset -3", "offset -2", "offset -1", "offset 0"]


def test_a_direction_that_changes_no_pattern_is_refused() -> None:
    space = SPACES["line"]
    query_only = Direction(name="query", factors=(torch.arange(11.0), torch.ones(11)))
    with pytest.raises(NotApplicableError, match=r"'query' is zero"):
        Projector(space, [query_only], layers=1, heads=1)


def test_two_directions_of_one_name_are_refused() -> None:
    twin = Direction(name="a", profile=torch.arange(21.0))
    with pytest.raises(ConfigError, match="different names"):
        Projector(SPACES["line"], [twin, twin], layers=1, heads=1)
