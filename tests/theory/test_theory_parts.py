"""The parts that measurements stand on, against answers worked out by hand or by another route."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from theory import beyond, exact, flows, random_start
from theory import measurements as measure
from theory.drawing.figures import FIGURES, draw
from theory.setting import (
    Setting,
    centre_rows,
    contrast_kernel,
    cubature,
    decaying,
    gaussian_sequences,
    lag_one,
    periodic_direction,
    position_codes,
    proximity_kernel,
    second_moments,
    sigma_points,
)


def test_exact_rank_of_a_matrix_that_floats_would_misjudge():
    tiny = Fraction(1, 10**30)
    assert exact.rank([[Fraction(1), Fraction(1)], [Fraction(1), Fraction(1) + tiny]]) == 2
    assert exact.rank([[Fraction(1), Fraction(2)], [Fraction(2), Fraction(4)]]) == 1
    assert exact.rank([[Fraction(0), Fraction(0)]]) == 0


def test_exact_maps_equal_their_float_counterparts():
    direction = np.random.default_rng(0).integers(-9, 9, (5, 5))
    flat = [Fraction(int(entry)) for entry in direction.ravel()]
    centred = [sum(a * b for a, b in zip(row, flat, strict=True)) for row in exact.centring_map(5)]
    np.testing.assert_allclose(np.array(centred, float).reshape(5, 5), centre_rows(direction.astype(float)), atol=1e-14)
    sums = [sum(a * b for a, b in zip(row, flat, strict=True)) for row in exact.column_sum_map(5)]
    np.testing.assert_allclose(np.array(sums, float), centre_rows(direction.astype(float)).sum(0), atol=1e-13)


def test_autograd_derivatives_equal_difference_quotients():
    rng = np.random.default_rng(1)
    inputs, labels = rng.standard_normal((3, 7, 2)), np.array([0.0, 1.0, 1.0])
    head = measure.LinearHead(value=rng.standard_normal((2, 2)), weight=rng.standard_normal(2))
    function = measure.label_losses(head, inputs, labels)
    scores, direction = rng.standard_normal((2, 7, 7))
    step = 1e-4
    up, middle, down = (measure.values(function, scores + k * step * direction) for k in (1, 0, -1))
    np.testing.assert_allclose(measure.derivative(function, scores, direction), (up - down) / (2 * step), rtol=1e-6)
    second = measure.second_derivative(function, scores, direction)
    np.testing.assert_allclose(second, (up - 2 * middle + down) / step**2, rtol=1e-4, atol=1e-6)
    mean = (measure.gradient(function, scores) * direction).sum()
    np.testing.assert_allclose(mean, measure.derivative(function, scores, direction).mean(), rtol=1e-12)


def test_reconstruction_by_hand():
    """Two positions, uniform attention, gain 2: each is restored as the other."""
    inputs = np.array([[[1.0], [3.0]]])
    uniform = np.zeros((2, 2))
    assert measure.values(measure.reconstruction_losses(inputs, 2.0), uniform) == pytest.approx([4.0])
    hidden = np.array([[True, False]])
    assert measure.values(measure.masked_losses(inputs, hidden, 2.0), uniform) == pytest.approx([4.0])
    assert measure.values(measure.masked_losses(inputs, ~hidden & False, 2.0), uniform) == pytest.approx([0.0])


def test_both_reconstruction_losses_agree_with_one_hidden_position():
    rng = np.random.default_rng(2)
    inputs, scores = rng.standard_normal((2, 5, 3)), rng.standard_normal((5, 5))
    each = [measure.values(measure.masked_losses(inputs, np.tile(row, (2, 1)), 0.7), scores) for row in np.eye(5) > 0]
    together = measure.values(measure.reconstruction_losses(inputs, 0.7), scores)
    np.testing.assert_allclose(np.mean(each, axis=0), together, rtol=1e-13)


def test_all_masks_are_distinct_and_never_empty():
    masks = measure.all_masks(5)
    assert len({tuple(mask) for mask in masks}) == len(masks) == 31
    assert masks.any(1).all()


@pytest.mark.parametrize("length", [3, 4, 7, 12])
@pytest.mark.parametrize(
    "correlation", [lambda n: decaying(n, 0.6), lambda n: decaying(n, -0.6), lambda n: lag_one(n, -0.4)]
)
def test_sigma_points_have_exactly_their_moments(length, correlation):
    moments = periodic_direction(correlation(length))
    points = sigma_points(moments, 2)
    np.testing.assert_allclose(second_moments(points), moments, atol=1e-13)
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-13)
    cross = np.einsum("ni,nj->ij", points[:, :, 0], points[:, :, 1])
    np.testing.assert_allclose(cross, 0, atol=1e-12)


@pytest.mark.parametrize(("length", "dim"), [(1, 1), (3, 1), (2, 2), (5, 1)])
def test_cubature_has_the_moments_of_a_gaussian_up_to_the_fifth(length, dim):
    root = np.random.default_rng(6).standard_normal((length, length))
    covariance = np.kron(root @ root.T, np.eye(dim))
    points, weights = cubature(root @ root.T, dim)
    flat, size = points.reshape(len(points), -1), length * dim
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(np.einsum("n,ni,nj->ij", weights, flat, flat), covariance, atol=1e-12 * size**2)
    fourth = np.einsum("n,ni,nj,nk,nl->ijkl", weights, flat, flat, flat, flat)
    pairings = [
        np.einsum(f"{a},{b}->ijkl", covariance, covariance) for a, b in (("ij", "kl"), ("ik", "jl"), ("il", "jk"))
    ]
    np.testing.assert_allclose(fourth, sum(pairings), atol=1e-10 * np.abs(covariance).max() ** 2)
    for odd in ("n,ni->i", "n,ni,nj,nk->ijk"):
        factors = [flat] * odd.count(",")
        assert np.abs(np.einsum(odd, weights, *factors)).max() < 1e-10


def test_gaussian_sequences_have_their_moments_on_average():
    moments = periodic_direction(lag_one(5, 0.4))
    found = second_moments(gaussian_sequences(moments, 3, 20_000, np.random.default_rng(3)))
    np.testing.assert_allclose(found, moments, atol=5 * np.sqrt(2 / 60_000))


def test_kernels_and_codes():
    np.testing.assert_allclose(proximity_kernel(5, 1.0), np.exp([0, -1, -2, -2, -1]))
    kernel = contrast_kernel(7)
    assert kernel[0] == pytest.approx(kernel.mean())
    np.testing.assert_allclose(contrast_kernel(3) - contrast_kernel(3).mean(), 0, atol=1e-16)
    np.testing.assert_allclose(position_codes(11, 2, centred=True).sum(0), 0, atol=1e-13)
    assert np.abs(position_codes(11, 2, centred=False).sum(0)).max() > 0.1


def test_integration_solves_a_known_equation():
    times = np.array([0.5, 1.0])
    for method in ("DOP853", "LSODA"):
        path = flows.integrate(lambda y: -y, np.array([[1.0, 2.0]]), times, method)
        np.testing.assert_allclose(path[:, 0], np.exp(-times)[:, None] * [1.0, 2.0], rtol=1e-6)


def test_adam_equals_torch():
    rng = np.random.default_rng(4)
    target = measure.tensor(rng.standard_normal((3, 3)))
    start = rng.standard_normal((3, 3))
    ours = flows.descend_with_adam(lambda s: ((s - target) ** 2).sum(1), start, 0.05, 7)
    scores = measure.tensor(start).requires_grad_(True)
    optimiser = torch.optim.Adam([scores], lr=0.05)
    for _ in range(7):
        optimiser.zero_grad()
        ((scores - target) ** 2).sum(1).mean().backward()
        optimiser.step()
    np.testing.assert_allclose(ours, scores.detach().numpy(), rtol=1e-12)


def test_query_dependence_is_the_distance_from_k():
    rng = np.random.default_rng(5)
    inside = rng.standard_normal(5)[None, :] + rng.standard_normal(5)[:, None]
    assert flows.query_dependence(inside) < 1e-14
    basis = np.stack([np.kron(np.eye(5)[i], np.ones(5)) for i in range(5)] + [np.tile(row, 5) for row in np.eye(5)])
    scores = rng.standard_normal((5, 5))
    residual = scores.ravel() - basis.T @ np.linalg.lstsq(basis.T, scores.ravel(), rcond=None)[0]
    assert flows.query_dependence(scores) == pytest.approx(np.linalg.norm(residual))


def test_figures_are_written(tmp_path):
    paths = draw(tmp_path / "new", length=5, dim=2, seed=1)
    assert [path.name for path in paths] == [f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf")]
    for path in paths:
        assert path.read_bytes()[:4] in (b"\x89PNG", b"%PDF")
    with pytest.raises(ValueError, match="length = 2"):
        draw(tmp_path, length=2, dim=2, seed=1)


def test_outside_the_setting_the_linear_arms_stay_query_free_and_others_do_not(monkeypatch):
    monkeypatch.setattr(beyond, "STEPS", 25)
    setting = Setting(length=5, dim=2)
    inputs, labels = beyond.data(setting)
    shares = {arm.title: [share for _, share, _ in beyond.train(arm, setting, inputs, labels)] for arm in beyond.ARMS}
    for title in list(shares)[:4]:
        assert shares[title][0] < 1e-11, title
    for title in ("tanh readout, residual stream", "layer norm, residual stream"):
        assert shares[title][0] > 0.05, title
    first, last = shares["two linear layers, residual stream"]
    assert first > 1e-3
    assert last < 1e-11


def test_beyond_prints_a_row_per_layer(monkeypatch, capsys):
    monkeypatch.setattr(beyond, "STEPS", 2)
    beyond.main(["--length", "4", "--dim", "2"])
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(beyond.ARMS) + 1 + 1
    with pytest.raises(SystemExit):
        beyond.main(["--length", "2"])


def test_random_starts_have_the_size_that_is_asked_for():
    for size in (0.2, 1.0):
        codes, (query, key) = random_start.factors(Setting(length=9, dim=2, seed=3), size)
        assert (codes @ query @ key.T @ codes.T / 2).std() == pytest.approx(size)  # sqrt(h) = 2


def test_from_random_starts_reconstruction_moves_towards_near_keys_and_shuffled_labels_do_not(monkeypatch):
    monkeypatch.setattr(random_start, "STEPS", 40)
    found = random_start.cosines(Setting(length=8, dim=3), draws=6, size=0.2)
    mean, low, _ = random_start.interval(found["masked reconstruction"])
    assert 0 < low < mean < 1
    _, low, high = random_start.interval(found["shuffled labels, tanh readout, residual stream"])
    assert low < 0 < high


def test_the_interval_is_that_of_student():
    mean, low, high = random_start.interval(np.array([1.0, 2.0, 4.0]))
    assert mean == pytest.approx(7 / 3)
    assert high - mean == pytest.approx(mean - low) == pytest.approx(4.302653 * np.std([1, 2, 4], ddof=1) / np.sqrt(3))


def test_random_start_prints_a_row_per_objective_and_size(monkeypatch, capsys):
    monkeypatch.setattr(random_start, "STEPS", 1)
    random_start.main(["--length", "5", "--dim", "2", "--draws", "2"])
    assert len(capsys.readouterr().out.splitlines()) == 1 + 4 * 2
    for wrong in (["--draws", "1"], ["--length", "3"]):
        with pytest.raises(SystemExit):
            random_start.main(wrong)
