"""Arrays of a person's own are what the file says, and what is wrong with the file is one line."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.tasks.own import source
from attnprobe.tasks.own.arrays import Arrays
from attnprobe.tasks.own.sequences import PAD_ID, SHIFT

N, LENGTH, CHANNELS = 23, 11, 3
LABELS = np.arange(N) % 2
TOKENS = np.random.default_rng(0).integers(0, 7, (N, LENGTH))
VALUES = np.random.default_rng(1).normal(5.0, 2.0, (N, LENGTH, CHANNELS))
SPLIT = np.array(["train", "train", "validation", "test", "train"])[np.arange(N) % 5]


def write(folder: Path, **changes: Any) -> Path:
    arrays = {"inputs": TOKENS, "labels": LABELS} | changes
    path = folder / "mine.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def load(folder: Path, settings: dict[str, Any] | None = None, **changes: Any):
    return Arrays(path=write(folder, **changes), **(settings or {})).load()


def test_tokens_come_back(tmp_path: Path) -> None:
    lengths = np.random.default_rng(2).integers(3, LENGTH + 1, N)
    data = load(tmp_path, lengths=lengths, split=SPLIT)
    assert (data.spec.length, data.spec.vocabulary, data.spec.classes) == (LENGTH, 7 + SHIFT, 2)
    for name, split in data.splits().items():
        rows = np.flatnonzero(np.equal(SPLIT, name))
        assert split.labels.tolist() == LABELS[rows].tolist()
        assert split.lengths is not None
        assert split.lengths.tolist() == lengths[rows].tolist()
        for ids, row in zip(split.inputs, rows, strict=True):
            assert ids[: lengths[row]].tolist() == (TOKENS[row, : lengths[row]] + SHIFT).tolist()
            assert (ids[lengths[row] :] == PAD_ID).all()


def test_values_come_back_and_the_model_sees_them_standardised(tmp_path: Path) -> None:
    data = load(tmp_path, inputs=VALUES, split=SPLIT, grid=None)
    train = VALUES[SPLIT == "train"].reshape(-1, CHANNELS)
    np.testing.assert_allclose(data.spec.mean, train.mean(0), rtol=1e-6)
    np.testing.assert_allclose(data.spec.std, train.std(0), rtol=1e-6)
    assert torch.equal(data.test.inputs, torch.from_numpy(VALUES[SPLIT == "test"].astype(np.float32)))
    assert (data.spec.channels, data.spec.levels, data.spec.grid) == (CHANNELS, None, None)


def test_what_stands_behind_the_end_does_not_count(tmp_path: Path) -> None:
    lengths = np.full(N, 7)
    clean = load(tmp_path, inputs=VALUES, lengths=lengths)
    dirty = VALUES.copy()
    dirty[:, 7:] = np.nan
    assert load(tmp_path, inputs=dirty, lengths=lengths).fingerprint() == clean.fingerprint()
    np.testing.assert_allclose(clean.spec.mean, load(tmp_path, inputs=VALUES[:, :7]).spec.mean)
    tokens = TOKENS.copy()
    tokens[:, 7:] = -100
    ignored = load(tmp_path, inputs=tokens, lengths=lengths)
    assert ignored.fingerprint() == load(tmp_path, lengths=lengths).fingerprint()
    assert ignored.spec.vocabulary == TOKENS[:, :7].max() + 1 + SHIFT


def test_large_means_do_not_drown_small_deviations(tmp_path: Path) -> None:
    values = 1e6 + np.random.default_rng(3).integers(0, 2, (N, LENGTH))  # float32 holds these exactly
    data = load(tmp_path, {"kind": "values"}, inputs=values.astype(np.float64), split=SPLIT)
    assert data.spec.std[0] == pytest.approx(values[SPLIT == "train"].std(), rel=1e-9)


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 2)])
def test_images_keep_their_grid(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (N, *shape), dtype=np.uint8)
    settings = {} if len(shape) == 3 else {"grid": (3, 5)}
    data = load(tmp_path, settings, inputs=pixels, split=SPLIT)
    channels = shape[2] if len(shape) == 3 else 1
    assert (data.spec.grid, data.spec.length, data.spec.channels, data.spec.levels) == ((3, 5), 15, channels, 256)
    assert (data.train.inputs.numpy().reshape(-1, *shape) == pixels[SPLIT == "train"]).all()
    flat = load(tmp_path, inputs=pixels.reshape(N, 15, -1), grid=np.array([3, 5]))
    assert flat.spec.grid == (3, 5)


def test_classes_have_names(tmp_path: Path) -> None:
    data = load(tmp_path, labels=np.array(["no", "yes"])[LABELS])
    assert data.spec.class_names == ("no", "yes")
    data = load(tmp_path, class_names=np.array(["zero", "one", "two"]))
    assert (data.spec.classes, data.spec.class_names) == (3, ("zero", "one", "two"))
    assert load(tmp_path, labels=LABELS.astype("S3")).spec.class_names == ("0", "1")


def test_the_kind_can_be_said(tmp_path: Path) -> None:
    assert load(tmp_path, {"kind": "values"}).spec.vocabulary is None
    assert load(tmp_path, {"kind": "tokens"}, inputs=TOKENS.astype(np.float32)).spec.vocabulary == 7 + SHIFT
    data = load(tmp_path, {"inputs": "x", "labels": "y"}, x=VALUES, y=LABELS, inputs=None, labels=None)
    assert data.spec.channels == CHANNELS


def test_equal_rows_across_parts_are_noted(tmp_path: Path) -> None:
    inputs = np.tile(np.arange(LENGTH), (N, 1))
    inputs[0] += 1
    assert load(tmp_path, inputs=inputs, split=SPLIT).notes["test_share_also_in_training"] == 1
    assert load(tmp_path).notes["test_share_also_in_training"] < 1


NAN, NEGATIVE, HALF = VALUES.copy(), TOKENS.copy(), TOKENS.astype(float)
NAN[4, 2, 1], NEGATIVE[5, 3], HALF[6, 4] = np.nan, -2, 0.5


@pytest.mark.parametrize(
    ("changes", "settings", "words"),
    [
        ({"labels": None}, {}, "has no array 'labels'; it holds 'inputs'"),
        ({"inputs": None, "input": TOKENS}, {}, "has no array 'inputs'; it holds 'labels', 'input'"),
        ({"inputs": NAN}, {}, "1 samples hold NaN or infinite values, first sample 5 at 2"),
        ({"inputs": NEGATIVE}, {}, "sample 6 has -2 at position 3, which is negative"),
        ({"inputs": HALF}, {"kind": "tokens"}, "sample 7 has 0.5 at position 4, which is no whole number"),
        ({"inputs": VALUES}, {"kind": "tokens"}, "tokens have no channels, found 3"),
        ({"inputs": np.array(["a", "b"] * 9)}, {}, "holds texts, expected numbers"),
        ({"inputs": TOKENS[:, 0]}, {}, r"has the shape \(23,\)"),
        ({"inputs": TOKENS[:, :0]}, {}, r"has the shape \(23, 0\)"),
        ({"inputs": TOKENS[:9]}, {}, r"'labels' has the shape \(23,\), expected one entry for each of 9 samples"),
        ({"inputs": np.full((N, LENGTH), 2**40)}, {}, "holds the token 1099511627776"),
        ({"inputs": np.ones((N, LENGTH), np.float32)}, {}, "all training values are alike"),
        ({"inputs": TOKENS + 1j}, {}, "holds neither numbers nor texts"),
        ({"labels": np.zeros(N)}, {}, "labels 'labels' know one class only: '0'"),
        ({"labels": np.eye(N)[:, :3]}, {}, r"'labels' has the shape \(23, 3\)"),
        ({"labels": np.array([b"\xff", b"a"] * N)[:N]}, {}, "codec can't decode byte 0xff"),
        ({"inputs": TOKENS[:1], "labels": np.array(3)}, {}, r"'labels' has the shape \(\)"),
        ({"class_names": np.array(["x", "x"])}, {}, "two classes have one name"),
        ({"lengths": np.arange(N)}, {}, "sample 1 has the length 0, expected 1 to 11"),
        ({"lengths": np.full(N, LENGTH + 1)}, {}, "sample 1 has the length 12, expected 1 to 11"),
        ({"lengths": np.ones(N)}, {}, "lengths are no 23 whole numbers"),
        ({"grid": np.array([3, 4])}, {}, "a grid of 3 x 4 has not the 11 positions"),
        ({"grid": np.array([3, 4, 5])}, {}, "'grid' is no pair of whole numbers"),
        ({"split": SPLIT[:5]}, {}, r"'split' has the shape \(5,\)"),
        ({"split": np.full(N, 7)}, {}, "sample 1 is in a split called '7'"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, changes: dict, settings: dict, words: str) -> None:
    with pytest.raises(ArtifactError, match=words) as error:
        load(tmp_path, settings, **changes)
    assert error.value.hint


def refused(path: Path, words: str) -> None:
    with pytest.raises(ArtifactError, match=words) as error:
        Arrays(path=path).load()
    assert error.value.hint


def test_pickles_stay_closed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "exploded"),)

    objects = np.empty(N, object)
    objects[:] = Bomb()
    refused(write(tmp_path, labels=objects), "'labels' holds pickled Python objects")
    assert not (tmp_path / "exploded").exists()


def raw(folder: Path, name: str, content: bytes) -> Path:
    path = write(folder)
    with zipfile.ZipFile(path) as old:
        members = {info.filename: old.read(info) for info in old.infolist()} | {name: content}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for member, text in members.items():
            new.writestr(member, text)
    return path


def header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_declared_sizes_are_compared_before_anything_is_allocated(tmp_path: Path, monkeypatch) -> None:
    refused(raw(tmp_path, "inputs.npy", header((10**6, 10**6)) + bytes(64)), "declares 8,000,000,000,000 bytes")
    refused(raw(tmp_path, "inputs.npy", header((4, 2)) + bytes(640)), "declares 64 bytes, its place holds 640")
    refused(raw(tmp_path, "inputs.npy", header((-4, 2))), "impossible shape")
    refused(raw(tmp_path, "inputs.npy", b"no array"), "cannot be read")
    monkeypatch.setattr(source, "memory", lambda: 10**6)
    bomb = raw(tmp_path, "inputs.npy", header((N, 10**4)) + bytes(N * 8 * 10**4))
    assert bomb.stat().st_size < 10**4
    refused(bomb, "asks for 0.0 GiB of memory")


def test_files_that_are_none(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.npz", "nowhere.npz does not exist")
    refused(tmp_path, "is a folder, expected a file")
    (tmp_path / "empty.npz").touch()
    refused(tmp_path / "empty.npz", "is empty")
    (tmp_path / "text.npz").write_text("no archive")
    refused(tmp_path / "text.npz", "cannot be read")
    (tmp_path / "mine.npy").write_text("x")
    refused(tmp_path / "mine.npy", "is no .npz or .safetensors file")
    (tmp_path / "dangling.npz").symlink_to(tmp_path / "gone.npz")
    refused(tmp_path / "dangling.npz", "is a link that leads nowhere")
    (tmp_path / "loop.npz").symlink_to(tmp_path / "loop.npz")
    refused(tmp_path / "loop.npz", "is a link that leads nowhere")
    os.mkfifo(tmp_path / "pipe.npz")
    refused(tmp_path / "pipe.npz", "is no regular file")
    content = write(tmp_path).read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    refused(tmp_path / "cut.npz", "cannot be read")
    with pytest.raises(ConfigError, match="path is missing") as error:
        Arrays().load()
    assert "task.path" in error.value.hint


def test_files_are_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = write(tmp_path)
    monkeypatch.chdir(tmp_path)
    task = Arrays(path=Path("mine.npz"))
    assert task.path == there
    monkeypatch.chdir("/")
    fingerprint = task.load().fingerprint()
    (tmp_path / "moved").mkdir()
    there.rename(tmp_path / "moved" / "mine.npz")
    with pytest.raises(ArtifactError, match="does not exist") as error:
        task.load()
    assert "--data-dir" in error.value.hint
    assert task.load(tmp_path / "moved").fingerprint() == fingerprint
    (tmp_path / "link.npz").symlink_to(tmp_path / "moved" / "mine.npz")
    assert Arrays(path=tmp_path / "link.npz").load().fingerprint() == fingerprint
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Arrays(path=Path("~/mine.npz")).path == tmp_path / "mine.npz"


@pytest.mark.parametrize(
    "bad", [{"validation_share": 0.0}, {"test_share": 1.0}, {"test_share": 0.95}, {"data_seed": -1}, {"grid": (0, 3)}]
)
def test_impossible_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Arrays(**bad)


@pytest.mark.data
def test_safetensors(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    tensors = {"inputs": torch.from_numpy(VALUES).bfloat16(), "labels": torch.from_numpy(LABELS)}
    path = tmp_path / "mine.safetensors"
    library.save_file(tensors, path)
    data = Arrays(path=path).load()
    assert (data.spec.channels, data.spec.classes) == (CHANNELS, 2)
    wanted = tensors["inputs"].float()
    assert any(torch.equal(data.train.inputs[0], row) for row in wanted)
    content = path.read_bytes()
    for place in (4, 20, len(content) - 9):
        (tmp_path / "cut.safetensors").write_bytes(content[:place])
        refused(tmp_path / "cut.safetensors", "cannot be read")
    (tmp_path / "lies.safetensors").write_bytes(content.replace(b"[23,11,3]", b"[23,11,9]"))
    refused(tmp_path / "lies.safetensors", "cannot be read")
