import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from attnprobe.errors import ArtifactError
from attnprobe.tasks import images
from attnprobe.tasks.images import Image, SequentialCIFAR, luma, read_pickled
from attnprobe.tasks.sources.pickles import read_batch
from tests.tasks.sources.test_archives import make_tar
from tests.tasks.true_formats import (
    N_VALIDATION,
    PER_BATCH,
    cifar_batches,
    python2_pickle,
    shrink,
    write_cifar_binary,
    write_cifar_python,
)

N = 5 * PER_BATCH


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path / "cache"))
    shrink(monkeypatch)
    return tmp_path / "cache"


def planar(names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    batches = cifar_batches()
    return tuple(np.concatenate([batches[name][k] for name in names]) for k in range(2))  # pyright: ignore[reportReturnType]


TRAIN = [f"data_batch_{i}" for i in range(1, 6)]


def test_the_true_sizes_are_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert (images.PER_BATCH, images.TRAIN_BATCHES, images.N_VALIDATION) == (10_000, 5, 5_000)


def test_luma_is_what_pillow_computes() -> None:
    """All corners of the colour cube and many points inside, against another implementation of ITU-R 601."""
    levels = np.array([0, 1, 2, 127, 128, 254, 255], np.uint8)
    corners = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
    inside = np.random.default_rng(0).integers(0, 256, (20_000, 3), np.uint8)
    pixels = np.concatenate([corners, inside])
    expected = np.asarray(PIL.Image.fromarray(pixels[None]).convert("L"))[0]
    np.testing.assert_array_equal(luma(pixels), expected)


def test_luma_is_the_rounded_weighted_sum() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (50_000, 3), np.uint8)
    exact = pixels.astype(np.float64) @ [0.299, 0.587, 0.114]
    assert np.abs(luma(pixels) - exact).max() <= 0.5 + 255 * 3 / 2**16


@pytest.mark.parametrize("write", [write_cifar_binary, write_cifar_python])
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_every_version_gives_the_published_split(tmp_path: Path, write, form: str) -> None:
    name = "cifar-10-batches-bin" if write is write_cifar_binary else "cifar-10-batches-py"
    archive = "cifar-10-binary.tar.gz" if write is write_cifar_binary else "cifar-10-python.tar.gz"
    write(tmp_path / "data" / name)
    if form == "archive":
        folder = tmp_path / "data" / name
        files = {f"{name}/{path.name}": path.read_bytes() for path in folder.iterdir()}
        make_tar(tmp_path / "data" / archive, files)
        for path in folder.iterdir():
            path.unlink()
    data = SequentialCIFAR().load(tmp_path / "data")
    pixels, labels = planar(TRAIN)
    train, validation = torch.utils.data.random_split(
        range(N),  # pyright: ignore[reportArgumentType]
        [N - N_VALIDATION, N_VALIDATION],
        generator=torch.Generator().manual_seed(42),
    )
    for split, index in ((data.train, list(train)), (data.validation, list(validation))):
        expected = pixels[index].reshape(-1, 3, 1024).transpose(0, 2, 1)
        np.testing.assert_array_equal(split.inputs.numpy(), expected)
        np.testing.assert_array_equal(split.labels.numpy(), labels[index])
    test_pixels, test_labels = planar(["test_batch"])
    np.testing.assert_array_equal(data.test.inputs[3, 7].numpy(), test_pixels[3].reshape(3, 1024)[:, 7])
    np.testing.assert_array_equal(data.test.labels.numpy(), test_labels)


def test_colour_specification(tmp_path: Path) -> None:
    write_cifar_binary(tmp_path / "data")
    data = SequentialCIFAR().load(tmp_path / "data")
    assert (data.spec.length, data.spec.channels, data.spec.classes, data.spec.levels) == (1024, 3, 10, 256)
    assert data.spec.grid == (32, 32)
    assert data.spec.mean == pytest.approx((125.307, 122.961, 113.8575))
    assert data.spec.std == pytest.approx((62.985, 61.965, 66.555))
    assert data.train.inputs.dtype == torch.uint8


def test_grey_images_are_the_luma_of_colour_images(tmp_path: Path) -> None:
    write_cifar_python(tmp_path / "data")
    grey, colour = Image().load(tmp_path / "data"), SequentialCIFAR().load(tmp_path / "data")
    assert (grey.spec.channels, grey.spec.mean, grey.spec.std) == (1, (122.6,), (61.0,))
    for name, split in grey.splits().items():
        assert split.inputs.shape == (len(split), 1024, 1)
        np.testing.assert_array_equal(split.inputs[..., 0].numpy(), luma(colour.splits()[name].inputs.numpy()))


@pytest.mark.parametrize("task", [Image, SequentialCIFAR])
def test_smaller_images_are_averages(tmp_path: Path, task: type[Image] | type[SequentialCIFAR]) -> None:
    write_cifar_binary(tmp_path / "data")
    full, pooled = (task(side=side).load(tmp_path / "data") for side in (32, 8))
    assert (pooled.spec.length, pooled.spec.grid) == (64, (8, 8))
    assert (pooled.spec.mean, pooled.spec.std) == (full.spec.mean, full.spec.std)
    for name, split in pooled.splits().items():
        blocks = full.splits()[name].inputs.view(-1, 8, 4, 8, 4, full.spec.channels).double().mean((2, 4))
        assert split.inputs.dtype == torch.uint8
        assert torch.equal(split.inputs.view(-1, 8, 8, full.spec.channels).double(), blocks.round())
        assert torch.equal(split.labels, full.splits()[name].labels)


def test_training_subsets_are_nested(tmp_path: Path) -> None:
    write_cifar_binary(tmp_path / "data")
    small, large = (Image(n_train=n).load(tmp_path / "data") for n in (11, 29))
    assert torch.equal(small.train.inputs, large.train.inputs[:11])
    assert torch.equal(small.validation.inputs, large.validation.inputs)
    assert len(Image(fraction=0.5).load(tmp_path / "data").train) == (N - N_VALIDATION) // 2


@pytest.mark.parametrize("change", ["cut", "long", "label"])
@pytest.mark.parametrize("write", [write_cifar_binary, write_cifar_python])
def test_damaged_batches_are_artifact_errors(tmp_path: Path, change: str, write) -> None:
    write(tmp_path / "data")
    path = next((tmp_path / "data").glob("data_batch_3*"))
    content = path.read_bytes()
    pixels, labels = cifar_batches()["data_batch_3"]
    if change == "cut":
        path.write_bytes(content[:-1000])
    elif change == "long" and write is write_cifar_binary:
        path.write_bytes(content + b"1")
    elif change == "long":
        path.write_bytes(python2_pickle(np.concatenate([pixels, pixels]), labels.tolist()))
    elif write is write_cifar_binary:
        path.write_bytes(b"\x0a" + content[1:])
    else:
        path.write_bytes(python2_pickle(pixels, [10, *labels.tolist()[1:]]))
    with pytest.raises(ArtifactError, match="data_batch_3"):
        Image().load(tmp_path / "data")


def test_missing_data_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="CIFAR-10, binary version") as error:
        Image().load(tmp_path)
    assert "attnprobe data fetch cifar-10" in error.value.hint


# --- the restricted pickle -------------------------------------------------------------------------------------------


def test_the_fixture_is_a_pickle_that_python_itself_reads() -> None:
    pixels, labels = cifar_batches()["data_batch_2"]
    raw = python2_pickle(pixels, labels.tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy has moved the module that these files name
        batch = pickle.loads(raw, encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], pixels)
    ours, our_labels = read_batch(raw, "here")
    np.testing.assert_array_equal(ours, pixels)
    assert our_labels.tolist() == batch[b"labels"] == labels.tolist()


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


EVIL = {
    "call": b"cos\nsystem\n(S'touch {}'\ntR.",
    "built in": b'c__builtin__\neval\n(S\'open("{}", "w")\'\ntR.',
    "instance": b"(S'touch {}'\nios\nsystem\n.",
    "old name": b"cposix\nsystem\n(S'touch {}'\ntR.",
    "attribute": b"cnumpy\nload\n(S'{}'\ntR.",
    "dotted": b"\x80\x04\x8c\x05numpy\x8c\x13ndarray.__class__.x\x93.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"Pid\n.",
}


@pytest.mark.parametrize("name", EVIL)
def test_no_pickle_runs_anything(tmp_path: Path, name: str) -> None:
    witness = tmp_path / "witness"
    raw = EVIL[name].replace(b"{}", str(witness).encode())
    with pytest.raises(ArtifactError, match="is not a batch"):
        read_batch(raw, "here")
    assert not witness.exists()


def test_an_object_that_reduces_to_a_command_is_refused(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(ArtifactError, match="it names"):
            read_batch(pickle.dumps({b"data": _Evil(witness)}, protocol), "here")
    assert not witness.exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no pickle",
        b"\x80\x02}.",  # an empty dict
        b"\x80\x02r\xff\xff\xff\xff.",  # memo slot 4294967295 of an empty stack
        b"\x80\x02Nr\xff\xff\xff\xff.",  # the C unpickler would ask for 64 GB here
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",  # bytes of absurd length
        pickle.dumps({b"data": [1], b"labels": [1]}),
        pickle.dumps([1, 2]),
    ],
)
def test_other_pickles_are_artifact_errors(raw: bytes) -> None:
    with pytest.raises(ArtifactError, match="here is not a batch"):
        read_batch(raw, "here")


def test_arrays_of_other_types_are_refused() -> None:
    pixels, labels = cifar_batches(3)["test_batch"]
    raw = python2_pickle(pixels, labels.tolist())
    for wrong in (b"O8", b"f4"):
        with pytest.raises(ArtifactError, match="an array of type"):
            read_batch(raw.replace(b"U\x02u1", b"U\x02" + wrong), "here")


def test_every_cut_of_a_batch_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "PER_BATCH", 2)
    pixels, labels = cifar_batches(2)["test_batch"]
    raw = python2_pickle(pixels, labels.tolist())
    path = tmp_path / "test_batch"
    path.write_bytes(raw)
    assert len(read_pickled(path)[1]) == 2
    for stop in range(0, len(raw), 97):
        path.write_bytes(raw[:stop])
        with pytest.raises(ArtifactError):
            read_pickled(path)


@pytest.mark.parametrize("core", ["core", "_core"])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("text", [False, True])
def test_batches_rewritten_by_newer_versions_are_read(core: str, protocol: int, text: bool) -> None:
    """NumPy 2 names numpy._core where NumPy 1 named numpy.core; Python 3 names things of its own."""
    pixels, labels = cifar_batches()["data_batch_4"]
    names = ("data", "labels", "batch_label") if text else (b"data", b"labels", b"batch_label")
    raw = pickle.dumps(dict(zip(names, (pixels, labels.tolist(), b"training batch 4"), strict=True)), protocol)
    ours = b"_core" if b"numpy._core" in raw else b"core"
    name, other = (b"numpy." + part for part in (ours, core.encode()))
    if protocol >= 4:  # names carry their length
        for ending in (b".multiarray", b".numeric"):
            old, new = (b"\x8c" + bytes([len(n + ending)]) + n + ending for n in (name, other))
            raw = raw.replace(old, new)
        raw = raw[:3] + (int.from_bytes(raw[3:11], "little") + len(other) - len(name)).to_bytes(8, "little") + raw[11:]
    else:
        raw = raw.replace(name, other)
    assert b"numpy." + core.encode() + b"." in raw
    found, found_labels = read_batch(raw, "here")
    np.testing.assert_array_equal(found, pixels)
    np.testing.assert_array_equal(found_labels, labels)


def test_a_batch_that_numpy_2_writes_is_read(tmp_path: Path) -> None:
    write_cifar_python(tmp_path / "data")
    expected = Image().load(tmp_path / "data").fingerprint()
    for name, (pixels, labels) in cifar_batches().items():
        (tmp_path / "data" / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": labels.tolist()}))
    assert Image().load(tmp_path / "data").fingerprint() == expected


def test_every_error_of_a_pickle_has_a_reason() -> None:
    pixels, labels = cifar_batches(2)["test_batch"]
    raw = python2_pickle(pixels, labels.tolist())
    for stop in (0, 2, 40, len(raw) // 2, len(raw) - 1):
        with pytest.raises(ArtifactError, match=r"is not a batch of CIFAR-10: \w") as error:
            read_batch(raw[:stop], "here")
        assert error.value.hint
    with pytest.raises(ArtifactError, match="it ends too early"):
        read_batch(raw[:-1], "here")


@pytest.mark.parametrize(
    "raw",
    [b"\x80\x02c_codecs\nencode\nX\x02\x00\x00\x00abX\x05\x00\x00\x00utf-8\x86R.", b"\x80\x02c_codecs\nlookup\n."],
)
def test_the_codec_is_no_way_out(raw: bytes) -> None:
    with pytest.raises(ArtifactError, match="is not a batch"):
        read_batch(raw, "here")
