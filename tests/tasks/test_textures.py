import dataclasses

import numpy as np
import pytest
import torch

from attnprobe.tasks.textures import Textures

SMALL = Textures(side=7, classes=3, n_train=2000, n_validation=11, n_test=13)


def test_shapes_balance_and_standardisation() -> None:
    data = SMALL.load()
    assert data.train.inputs.shape == (2000, 49, 1)
    assert len(data.validation) == 11
    assert len(data.test) == 13
    assert data.spec.grid == (7, 7)
    counts = torch.bincount(data.train.labels)
    assert counts.max() - counts.min() <= 1
    pixels = data.train.inputs[..., 0]
    assert pixels.mean(1).abs().max() < 1e-5
    assert (pixels.var(1, correction=0) - 1).abs().max() < 1e-4


def test_same_seed_same_images_and_more_training_data_leaves_test_alone() -> None:
    data, again = SMALL.load(), SMALL.load()
    assert data.fingerprint() == again.fingerprint()
    larger = Textures(side=7, classes=3, n_train=2001, n_validation=11, n_test=13).load()
    assert torch.equal(larger.test.inputs, data.test.inputs)
    assert Textures(side=7, classes=3, n_train=2000, data_seed=1).load().fingerprint() != data.fingerprint()


def test_neighbours_are_correlated_along_the_class_orientation_as_the_spectrum_says() -> None:
    """The field's autocorrelation is the Fourier transform of the squared amplitude: a Gaussian with both lengths.

    Amplitude exp(-pi^2 l^2 u^2) squared is exp(-2 pi^2 l^2 u^2), whose transform is exp(-r^2 / (2 l^2)). Standardising
    each small image removes its own mean, so only the order of the correlations is tested on images, and the exact
    kernel on the raw amplitude.
    """
    amplitude = Textures(side=16, along=2.0, across=1.0)._amplitude(0.0)
    kernel = np.fft.ifft2(amplitude**2).real
    kernel /= kernel[0, 0]
    lag = np.arange(5)
    assert np.allclose(kernel[0, :5], np.exp(-(lag**2) / (2 * 2.0**2)), atol=1e-3)  # x is along orientation 0
    # Across, the spectrum at the Nyquist frequency is exp(-2 pi^2 / 4) = 0.007: aliasing shows in the third digit.
    assert np.allclose(kernel[:5, 0], np.exp(-(lag**2) / 2), atol=0.02)
    images = Textures(classes=2, n_train=4000).load().train
    grid = images.inputs.view(-1, 10, 10)
    for label, along, across in ((0, 2, 1), (1, 1, 2)):
        field = grid[images.labels == label]
        correlation = [(field.narrow(d, 0, 9) * field.narrow(d, 1, 9)).mean() for d in (1, 2)]
        assert correlation[along - 1] > correlation[across - 1] + 0.2


def test_single_pixels_do_not_tell_the_class() -> None:
    """Per-image sorted pixel values (all that single pixels can say) classify at chance."""
    data = Textures(n_train=4000, n_test=4000).load()

    def features(split):
        return torch.sort(split.inputs[..., 0], dim=1).values

    x, y = features(data.train), torch.nn.functional.one_hot(data.train.labels).float()
    weights = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), y, driver="gelsd").solution
    t = features(data.test)
    guess = (torch.cat([t, torch.ones(len(t), 1)], 1) @ weights).argmax(1)
    # orientation changes how many pixels agree on a square grid a little; far from what interactions give
    assert (guess == data.test.labels).float().mean() < 0.40


def test_a_shortcut_adds_the_pattern_of_the_class_to_every_patch_and_nothing_else() -> None:
    plain, data = SMALL.load(), dataclasses.replace(SMALL, shortcut=0.7).load()
    signs = {}
    for name, split in data.splits().items():
        before = plain.splits()[name]
        assert torch.equal(split.labels, before.labels)
        added = (split.inputs - before.inputs)[..., 0] / 0.7
        for label in range(3):
            of_class = added[split.labels == label]
            pattern = signs.setdefault(label, of_class[0].round())
            assert torch.allclose(of_class, pattern.expand_as(of_class), atol=1e-5)
            assert set(pattern.tolist()) == {-1.0, 1.0}
    assert len({tuple(pattern.tolist()) for pattern in signs.values()}) == 3


def test_with_a_shortcut_the_class_has_the_stated_statistics_and_single_pixels_tell_it() -> None:
    """Of class c, pixel i has mean shortcut * sign_c(i); variances average to 1, as in every plain patch by itself."""
    data = Textures(side=7, classes=3, n_train=6000, shortcut=0.5).load().train
    images = data.inputs[..., 0]
    means = torch.stack([images[data.labels == label].mean(0) for label in range(3)])
    assert (means.abs() - 0.5).abs().max() < 5 / 2000**0.5
    variances = torch.stack([images[data.labels == label].var(0) for label in range(3)])
    assert (variances.mean(1) - 1).abs().max() < 0.01
    guess = (images @ means.T).argmax(1)
    assert (guess == data.labels).float().mean() > 0.75


def test_a_pixel_order_moves_all_images_alike_and_separates_neighbours() -> None:
    plain, data = SMALL.load(), dataclasses.replace(SMALL, pixel_order=5).load()
    first, moved = plain.train.inputs[..., 0], data.train.inputs[..., 0]
    where = (moved[0][:, None] == first[0][None]).float().argmax(1)
    assert sorted(where.tolist()) == list(range(49))
    for name, split in data.splits().items():
        assert torch.equal(split.inputs, plain.splits()[name].inputs[:, where])
        assert torch.equal(split.labels, plain.splits()[name].labels)
    assert data.spec == plain.spec
    near = [(images[:, 1:] * images[:, :-1]).mean().item() for images in (first, moved)]
    assert near[0] > 0.3 > 3 * abs(near[1])
    assert dataclasses.replace(SMALL, pixel_order=6).load().fingerprint() != data.fingerprint()


IMPOSSIBLE = [
    {"side": 0}, {"classes": 1}, {"along": -1.0}, {"n_train": 0}, {"data_seed": -1}, {"shortcut": -0.1},
    {"pixel_order": -1},
]  # fmt: skip


@pytest.mark.parametrize("setting", IMPOSSIBLE)
def test_impossible_settings(setting: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        Textures(**setting)


@pytest.mark.parametrize("setting", [{"along": 1e300}, {"shortcut": 1e30}, {"shortcut": 1e300}])
@pytest.mark.filterwarnings("error")
def test_pixels_that_no_model_could_see_are_refused(setting: dict) -> None:
    with pytest.raises(ValueError, match=rf"pixels are infinite or alike .*task\.{next(iter(setting))}"):
        Textures(side=5, n_train=8, n_validation=4, n_test=4, **setting).load()
