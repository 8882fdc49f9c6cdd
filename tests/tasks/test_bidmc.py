import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.tasks import bidmc
from attnprobe.tasks.bidmc import BIDMC, split_indices
from tests.tasks.true_formats import LENGTH, shrink, write_bidmc


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path / "cache"))
    shrink(monkeypatch)


def test_the_true_length_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert (bidmc.LENGTH, bidmc.CHANNELS) == (4000, 2)


@pytest.mark.parametrize(
    ("n", "validation", "test"), [(20, [18, 8, 17], [19, 1, 10]), (23, [20, 14, 1], [13, 21, 10, 11])]
)
def test_the_split_is_that_of_scikit_learn(n: int, validation: list[int], test: list[int]) -> None:
    """Against scikit-learn 1.9.1: train_test_split(test_size=0.3, random_state=0), then (0.5, 1) of the second part."""
    found = split_indices(n)
    assert (found[1].tolist(), found[2].tolist()) == (validation, test)
    assert found[0].tolist()[:5] == {20: [6, 13, 4, 2, 5], 23: [22, 16, 8, 6, 17]}[n]
    assert sorted(np.concatenate(found)) == list(range(n))


def test_the_split_of_thousands_is_that_of_scikit_learn() -> None:
    digests = [hashlib.sha256(index.astype("<i8").tobytes()).hexdigest()[:16] for index in split_indices(7949)]
    assert digests == ["9fa4e2358f1b9f81", "6d8be4b6dc94be8c", "5e21601d39bd25e0"]


@pytest.mark.parametrize("target", ["RR", "HR", "SpO2"])
def test_both_files_are_joined_and_split(tmp_path: Path, target: Literal["RR", "HR", "SpO2"]) -> None:
    signals, labels = write_bidmc(tmp_path / "data" / "bidmc", target)
    data = BIDMC(target=target, rescale_targets=False).load(tmp_path / "data")
    assert [len(split) for split in data.splits().values()] == [14, 3, 3]
    for split, index in zip(data.splits().values(), split_indices(20), strict=True):
        np.testing.assert_array_equal(split.inputs.numpy(), signals[index])
        np.testing.assert_array_equal(split.labels.numpy(), labels[index].astype(np.float32))
    assert (data.spec.regression, data.spec.classes, data.spec.channels) == (True, 1, 2)
    assert data.train.labels.dtype == torch.float32


def test_rescaled_training_labels_span_the_unit_range(tmp_path: Path) -> None:
    _, labels = write_bidmc(tmp_path / "data")
    data = BIDMC().load(tmp_path / "data")
    train, _, test = split_indices(20)
    assert (data.train.labels.min(), data.train.labels.max()) == (-1, 1)
    low, high = labels[train].min(), labels[train].max()
    np.testing.assert_allclose(data.test.labels.numpy(), (labels[test] - low) / (high - low) * 2 - 1, rtol=1e-5)


def test_channels_can_be_standardised(tmp_path: Path) -> None:
    write_bidmc(tmp_path / "data")
    raw, standard = (BIDMC(standardise=s).load(tmp_path / "data") for s in (False, True))
    assert raw.spec.mean == (0.0, 0.0)
    values = raw.train.inputs.double()
    assert standard.spec.mean == pytest.approx(tuple(values.mean((0, 1)).tolist()))
    assert standard.spec.std == pytest.approx(tuple(values.std((0, 1), correction=0).tolist()))
    assert torch.equal(raw.train.inputs, standard.train.inputs)  # the model subtracts


def test_neighbouring_values_can_be_averaged(tmp_path: Path) -> None:
    write_bidmc(tmp_path / "data")
    full, short = (BIDMC(downsample=factor).load(tmp_path / "data") for factor in (1, 6))
    assert short.spec.length == LENGTH // 6 == 6
    expected = full.test.inputs[:, :36].view(-1, 6, 6, 2).double().mean(2)
    torch.testing.assert_close(short.test.inputs.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(short.train.labels, full.train.labels)


def test_labels_cannot_be_noisy() -> None:
    with pytest.raises(ConfigError, match="label_noise"):
        BIDMC(label_noise=0.1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2,3:1,2,3:80", r"channels of \[3, 3\] values"),
        (",".join(["1"] * LENGTH) + ":80", "expected"),
        (":".join([",".join(["1"] * LENGTH)] * 2) + ":?", "not a number"),
        (":".join([",".join(["?"] * LENGTH)] * 2) + ":80", "not a number"),
        (":".join([",".join(["nan"] * LENGTH)] * 2) + ":80", "not finite"),
        (":".join([",".join(["1"] * LENGTH)] * 2) + ":inf", "not finite"),
    ],
)
def test_damaged_lines_are_artifact_errors(tmp_path: Path, line: str, message: str) -> None:
    write_bidmc(tmp_path / "data")
    with (tmp_path / "data" / "BIDMC32HR_TEST.ts").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ArtifactError, match=message) as error:
        BIDMC().load(tmp_path / "data")
    assert "line 16" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"@data\n", b"<html>", b"\xff\xff"])
def test_other_files_are_artifact_errors(tmp_path: Path, content: bytes) -> None:
    write_bidmc(tmp_path / "data")
    (tmp_path / "data" / "BIDMC32HR_TEST.ts").write_bytes(content)
    with pytest.raises(ArtifactError, match="BIDMC32HR_TEST"):
        BIDMC().load(tmp_path / "data")


def test_missing_files_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no complete copy of BIDMC SpO2") as error:
        BIDMC(target="SpO2").load(tmp_path)
    assert "attnprobe data fetch bidmc-spo2" in error.value.hint


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_cut_within_the_last_label_is_noticed(tmp_path: Path, lost: int) -> None:
    """80.123 would pass for 80.12 or 80.1."""
    write_bidmc(tmp_path / "data")
    path = tmp_path / "data" / "BIDMC32HR_TEST.ts"
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(ArtifactError, match="line 15 has no end: its label may be cut") as error:
        BIDMC().load(tmp_path / "data")
    assert "add a line end" in error.value.hint


# --- a copy that published code has split ----------------------------------------------------------------------------


def write_prepared(folder: Path, target: str = "HR") -> None:
    """What the published process_data.py leaves: (n, length, 2) and (n,) float64 arrays of each split."""
    signals, labels = write_bidmc(folder / "made", target)
    (folder / target / "reshuffle").mkdir(parents=True)
    for part, index in zip(("train", "valid", "test"), split_indices(len(labels)), strict=True):
        channels_first = signals[index].astype(np.float64).swapaxes(-1, -2).copy()
        np.save(folder / target / "reshuffle" / f"{part}x.npy", channels_first.swapaxes(-1, -2))
        np.save(folder / target / "reshuffle" / f"{part}y.npy", labels[index])


@pytest.mark.parametrize("place", ["data", "data/bidmc"])
def test_a_prepared_copy_gives_the_same_data(tmp_path: Path, place: str) -> None:
    write_prepared(tmp_path / place)
    for settings in ({}, {"standardise": True, "downsample": 2}, {"rescale_targets": False, "n_train": 5}):
        prepared = BIDMC(**settings).load(tmp_path / "data")
        original = BIDMC(**settings).load(tmp_path / place / "made")
        assert prepared.fingerprint() == original.fingerprint()
        assert prepared.spec == original.spec


def test_a_prepared_copy_of_another_target_is_none(tmp_path: Path) -> None:
    write_prepared(tmp_path / "data", "RR")
    with pytest.raises(ArtifactError, match="no complete copy of BIDMC HR"):
        BIDMC(target="HR").load(tmp_path / "data")


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        ("trainx", np.zeros((14, 2, LENGTH)), r"shape \(14, 2, 37\), expected"),
        ("trainx", np.zeros((14, LENGTH, 2), np.int16), "int16"),
        ("validx", np.full((3, LENGTH, 2), np.nan), "validx.npy holds a value that is not finite"),
        ("validx", np.zeros((2, LENGTH, 2)), "has 2 signals and 3 labels in valid"),
        ("testy", np.full(3, np.inf), "testy.npy holds a value that is not finite"),
        ("testy", np.float64(3), "expected numbers"),
        ("testy", np.array(["1"] * 3), "expected numbers"),
        ("testy", np.zeros(0), "has 3 signals and 0 labels in test"),
    ],
)
def test_wrong_arrays_are_artifact_errors(tmp_path: Path, file: str, array: np.ndarray, message: str) -> None:
    write_prepared(tmp_path / "data")
    np.save(tmp_path / "data" / "HR" / "reshuffle" / f"{file}.npy", array)
    with pytest.raises(ArtifactError, match=message) as error:
        BIDMC().load(tmp_path / "data")
    assert error.value.hint


def test_damaged_arrays_are_artifact_errors(tmp_path: Path) -> None:
    write_prepared(tmp_path / "data")
    path = tmp_path / "data" / "HR" / "reshuffle" / "testx.npy"
    whole = path.read_bytes()
    huge = whole.replace(b"(3, 37, 2), }", b"(3000000000000, 37, 2), }")
    huge = huge[:118].rstrip() + b" " * (127 - len(huge[:118].rstrip())) + b"\n" + whole[128:]
    wrong = {"cut": whole[:-1], "long": whole + b"1", "empty": b"", "other": b"PK\x03\x04", "huge": huge}
    for name, content in wrong.items():
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"testx\.npy"):
            BIDMC().load(tmp_path / "data")
        assert name
    objects = np.array([{"a": 1}, None, 2], object)
    np.save(path, objects, allow_pickle=True)
    with pytest.raises(ArtifactError, match=r"testx\.npy cannot be read"):
        BIDMC().load(tmp_path / "data")
