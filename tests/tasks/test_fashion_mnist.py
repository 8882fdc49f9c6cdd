import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.tasks import fashion_mnist
from attnprobe.tasks.fashion_mnist import FashionMNIST, read_idx
from attnprobe.tasks.sources import copies
from tests.tasks.true_formats import idx_bytes, shrink, write_fashion

HAVE = (fashion_mnist.DEBIAN_FOLDER / "train-images-idx3-ubyte.gz").exists()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The true layout with 70 training and 30 test images instead of 60 000 and 10 000."""
    shrink(monkeypatch)
    monkeypatch.setattr(copies, "SYSTEM_FOLDER", tmp_path / "nothing")
    write_fashion(tmp_path)
    return tmp_path


def test_reads_splits_and_pools(folder: Path) -> None:
    full = FashionMNIST(n_train=50).load(folder)
    assert full.train.inputs.shape == (50, 784, 1)
    assert full.train.inputs.dtype == torch.uint8
    assert len(full.validation) == 20
    assert len(full.test) == 30
    pooled = FashionMNIST(side=14, n_train=50).load(folder)
    blocks = full.train.inputs[0].view(14, 2, 14, 2).double().mean((1, 3))
    assert torch.equal(pooled.train.inputs[0].view(14, 14).double(), blocks.round())
    values = pooled.train.inputs.double()  # all candidates: n_train is as large as it can be
    assert pooled.spec.mean[0] == pytest.approx(values.mean().item())


def test_subsets_are_prefixes_of_the_split(folder: Path) -> None:
    order = np.random.RandomState(42).permutation(70)
    images = read_idx(folder / "train-images-idx3-ubyte.gz", 70).reshape(70, 784, 1)
    whole, some = FashionMNIST(n_train=50).load(folder), FashionMNIST(fraction=0.2, n_test=7).load(folder)
    np.testing.assert_array_equal(whole.train.inputs.numpy(), images[order[:50]])
    np.testing.assert_array_equal(whole.train.labels.numpy(), order[:50] % 10)
    np.testing.assert_array_equal(some.train.inputs.numpy(), images[order[:10]])
    np.testing.assert_array_equal(whole.validation.inputs.numpy(), images[order[50:]])
    assert len(some.test) == 7
    assert some.spec == whole.spec  # the input scale does not depend on the number of training images


def test_training_labels_can_be_noisy(folder: Path) -> None:
    clean, noisy = (FashionMNIST(n_train=40, label_noise=p).load(folder) for p in (0.0, 0.5))
    assert torch.equal(clean.train.inputs, noisy.train.inputs)
    assert 8 < (clean.train.labels != noisy.train.labels).sum() < 32
    assert torch.equal(clean.validation.labels, noisy.validation.labels)
    assert torch.equal(clean.test.labels, noisy.test.labels)


def test_environment_variable_and_missing_files(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path / "cache"))
    with pytest.raises(ArtifactError, match="no complete copy of Fashion-MNIST: looked in") as caught:
        FashionMNIST(n_train=10).load()
    assert str(tmp_path / "cache") in str(caught.value)
    assert "apt-get install" in caught.value.hint
    (tmp_path / "cache").mkdir()
    folder_in_cache = tmp_path / "cache" / "fashion-mnist"
    folder_in_cache.mkdir()
    for file in folder.glob("*.gz"):
        (folder_in_cache / file.name).write_bytes(file.read_bytes())
    assert len(FashionMNIST(n_train=10).load().train) == 10
    (folder_in_cache / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ArtifactError, match=r"fashion-mnist lacks t10k-labels-idx1-ubyte\.gz$"):
        FashionMNIST(n_train=10).load()


@pytest.mark.parametrize("place", ["data", "data/fashion-mnist"])
def test_another_copy_is_not_taken_for_an_incomplete_one(folder: Path, tmp_path: Path, place: str) -> None:
    """The system has a whole copy; the person's own lacks one file."""
    write_fashion(tmp_path / "nothing" / "fashion-mnist")
    (tmp_path / "data").mkdir()
    assert len(FashionMNIST(n_train=10).load(tmp_path / "data").train) == 10  # nothing of theirs: the system's
    write_fashion(tmp_path / place)
    (tmp_path / place / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ArtifactError, match=rf"{place} lacks t10k-labels-idx1-ubyte\.gz$"):
        FashionMNIST(n_train=10).load(tmp_path / "data")


def damage(path: Path, change) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("train-images-idx3", lambda b: b[: len(b) // 2], "cannot be read"),
        ("train-images-idx3", lambda b: b"not gzip at all", "cannot be read"),
        ("train-images-idx3", lambda b: gzip.compress(gzip.decompress(b)[:-5]), "fewer bytes"),
        ("train-images-idx3", lambda b: gzip.compress(gzip.decompress(b) + b"x"), "more bytes"),
        ("train-labels-idx1", lambda b: gzip.compress(idx_bytes(np.zeros(70), 2051)), "magic number 00000803"),
        ("train-labels-idx1", lambda b: gzip.compress(idx_bytes(np.zeros(69))), "shape (69,), expected (70,)"),
        ("train-images-idx3", lambda b: gzip.compress(idx_bytes(np.zeros((70, 28, 27)))), "(70, 28, 27)"),
        ("train-labels-idx1", lambda b: gzip.compress(idx_bytes(np.full(70, 10))), "label 10"),
        ("t10k-labels-idx1", lambda b: gzip.compress(b""), "magic number"),
    ],
)
def test_damaged_files_are_one_clear_error(folder: Path, file: str, change, message: str) -> None:
    damage(folder / f"{file}-ubyte.gz", change)
    with pytest.raises(ArtifactError) as caught:
        FashionMNIST(n_train=10).load(folder)
    assert message in str(caught.value)
    assert file in str(caught.value)


def test_impossible_settings() -> None:
    with pytest.raises(ConfigError, match="side must be one of"):
        FashionMNIST(side=13)


def test_more_images_than_there_are(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.n_train can be at most 50, got 51"):
        FashionMNIST(n_train=51).load(folder)


@pytest.mark.skipif(not HAVE, reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_real_files() -> None:
    labels = read_idx(fashion_mnist.DEBIAN_FOLDER / "train-labels-idx1-ubyte.gz", 60_000)
    assert np.bincount(labels).tolist() == [6000] * 10  # published: perfectly balanced
    images = read_idx(fashion_mnist.DEBIAN_FOLDER / "train-images-idx3-ubyte.gz", 60_000)
    assert images.mean() / 255 == pytest.approx(0.2860, abs=1e-4)  # published constants
    assert images.std() / 255 == pytest.approx(0.3530, abs=1e-4)
