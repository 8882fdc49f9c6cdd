from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.tasks import Data, speech
from attnprobe.tasks.speech import SpeechCommands, moments
from tests.tasks.sources.test_archives import make_tar
from tests.tasks.true_formats import LENGTH, WORDS, shrink, write_speech


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path / "cache"))
    shrink(monkeypatch)
    write_speech(tmp_path / "data")
    return tmp_path / "data"


def clips(folder: Path, numbers: list[int]) -> np.ndarray:
    """(n, length) samples in [-1, 1), shorter clips continued with zeros."""
    out = []
    for word in WORDS:
        for i in numbers:
            samples = wavfile.read(folder / word / f"{i}_nohash_0.wav")[1] / 2**15
            out.append(np.pad(samples, (0, LENGTH - len(samples))))
    return np.array(out)


TRAIN = [0, 2, 3, 5]


def test_there_are_35_words_of_one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert len(speech.WORDS) == len(set(speech.WORDS)) == 35
    assert (speech.LENGTH, speech.RATE) == (16_000, 16_000)


def test_the_lists_name_validation_and_test(folder: Path) -> None:
    data = SpeechCommands(standardise="clips").load(folder)
    assert data.train.inputs.dtype == torch.int16
    for split, numbers in ((data.train, TRAIN), (data.validation, [1]), (data.test, [4])):
        np.testing.assert_array_equal(split.inputs[..., 0].numpy() / 2**15, clips(folder, numbers))
        assert split.labels.tolist() == [label for label in range(3) for _ in numbers]
    values = clips(folder, TRAIN) * 2**15
    assert data.spec.mean == pytest.approx((values.mean(),))
    assert data.spec.std == pytest.approx((values.std(ddof=1),))


@pytest.mark.parametrize("double_scaling", [False, True])
def test_every_position_is_standardised(folder: Path, double_scaling: bool) -> None:
    data = SpeechCommands(double_scaling=double_scaling).load(folder)
    scale = 2.0**15 if double_scaling else 1.0
    train = torch.from_numpy(clips(folder, TRAIN) / scale)
    for split, numbers in ((data.train, TRAIN), (data.validation, [1]), (data.test, [4])):
        values = torch.from_numpy(clips(folder, numbers) / scale)
        expected = (values - train.mean(0)) / (train.std(0) + 1e-5)  # the published formula, literally
        torch.testing.assert_close(split.inputs[..., 0].double(), expected, rtol=1e-6, atol=1e-6)
    assert (data.spec.mean, data.spec.std) == ((0.0,), (1.0,))
    if double_scaling:
        assert data.train.inputs.std() < 0.7  # the constant weighs as much as the deviation


def test_short_clips_can_keep_their_length(folder: Path) -> None:
    assert SpeechCommands().load(folder).train.lengths is None
    lengths = SpeechCommands(padding="masked").load(folder).train.lengths
    assert lengths is not None
    assert lengths.tolist() == [LENGTH, LENGTH - 5, LENGTH, LENGTH] * 3


def test_neighbouring_samples_can_be_averaged(folder: Path) -> None:
    def load(factor: int) -> Data:
        return SpeechCommands(standardise="clips", padding="masked", downsample=factor).load(folder)

    full, short = load(1).train, load(5).train
    assert load(5).spec.length == LENGTH // 5 == 7
    blocks = full.inputs[:, :35].view(-1, 7, 5, 1).double().mean(2)
    assert torch.equal(short.inputs.double(), blocks.round())
    assert short.lengths is not None
    assert short.lengths.tolist() == [7, 7, 7, 7] * 3  # 32 samples reach into the seventh position
    fewer = load(8).train.lengths
    assert fewer is not None
    assert fewer.tolist() == [4, 4, 4, 4] * 3
    nearly = load(2).train.lengths
    assert nearly is not None
    assert nearly.tolist() == [18, 16, 18, 18] * 3
    with pytest.raises(ConfigError, match="downsample"):
        SpeechCommands(downsample=0)


def test_the_archive_is_read_as_well(folder: Path) -> None:
    files = {f"./{p.relative_to(folder)}": p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    other = folder.parent / "other"
    other.mkdir()
    make_tar(other / "speech_commands_v0.02.tar.gz", files)
    assert SpeechCommands().load(other).fingerprint() == SpeechCommands().load(folder).fingerprint()


def test_subsets_do_not_change_the_standardisation(folder: Path) -> None:
    whole, part = SpeechCommands().load(folder), SpeechCommands(n_train=4).load(folder)
    assert torch.equal(whole.validation.inputs, part.validation.inputs)
    assert len(part.train) == 4


@pytest.mark.parametrize("axis", [0, None])
def test_moments_are_exact_over_blocks(axis: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "BLOCK", 7)
    values = np.random.default_rng(3).integers(-(2**15), 2**15, (23, 11, 1)).astype(np.int16)
    mean, std = moments(values, axis)
    np.testing.assert_allclose(mean, values.astype(np.float64).mean(axis), rtol=1e-12)
    np.testing.assert_allclose(std, values.astype(np.float64).std(axis, ddof=1), rtol=1e-12)


def test_double_scaling_needs_positions() -> None:
    with pytest.raises(ConfigError, match="double_scaling"):
        SpeechCommands(standardise="clips", double_scaling=True)


@pytest.mark.parametrize(
    ("rate", "samples", "message"),
    [
        (8_000, np.zeros(LENGTH, np.int16), "8000 Hz"),
        (16_000, np.zeros((LENGTH, 2), np.int16), "2 channels"),
        (16_000, np.zeros(LENGTH, np.float32), "unknown format: 3"),
        (16_000, np.zeros(LENGTH, np.uint8), "8 bits"),
        (16_000, np.zeros(LENGTH + 1, np.int16), f"{LENGTH + 1} samples"),
    ],
)
def test_other_sounds_are_artifact_errors(folder: Path, rate: int, samples: np.ndarray, message: str) -> None:
    wavfile.write(folder / "cat" / "0_nohash_0.wav", rate, samples)
    with pytest.raises(ArtifactError, match=message):
        SpeechCommands().load(folder)


@pytest.mark.parametrize("keep", [0, 3, 11, 20, 30, 43])
def test_cut_sounds_are_artifact_errors(folder: Path, keep: int) -> None:
    path = folder / "cat" / "0_nohash_0.wav"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match="0_nohash_0"):
        SpeechCommands().load(folder)


def test_listed_clips_must_exist(folder: Path) -> None:
    (folder / "zero" / "4_nohash_0.wav").unlink()
    with pytest.raises(ArtifactError, match=r"lacks 1 listed clips, such as zero/4_nohash_0\.wav"):
        SpeechCommands().load(folder)


def test_every_word_must_exist(folder: Path) -> None:
    for path in (folder / "cat").iterdir():
        path.unlink()
    with pytest.raises(ArtifactError, match="no clips of the word 'cat'"):
        SpeechCommands().load(folder)


@pytest.mark.parametrize("lost", [1, 2, 2 * LENGTH - 1, 2 * LENGTH])
def test_a_clip_that_declares_more_than_it_holds_is_refused(folder: Path, lost: int) -> None:
    path = folder / "cat" / "0_nohash_0.wav"
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(ArtifactError, match=r"cat/0_nohash_0\.wav") as error:
        SpeechCommands().load(folder)
    assert error.value.hint


def test_a_clip_that_declares_gigabytes_is_refused_before_they_are_read(folder: Path) -> None:
    path = folder / "cat" / "0_nohash_0.wav"
    content = bytearray(path.read_bytes())
    content[40:44] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"2147483640 samples, expected 1 to"):
        SpeechCommands().load(folder)


def test_no_clip_is_in_two_lists(folder: Path) -> None:
    with (folder / "testing_list.txt").open("a") as file:
        file.write("cat/1_nohash_0.wav\n")
    with pytest.raises(ArtifactError, match=r"testing_list\.txt names cat/1_nohash_0\.wav, which was named before"):
        SpeechCommands().load(folder)


def test_clips_of_unknown_words_are_not_left_out(folder: Path) -> None:
    (folder / "learned").mkdir()
    SpeechCommands().load(folder)  # a folder without clips is nothing to lose
    (folder / "cat" / "0_nohash_0.wav").rename(folder / "learned" / "0_nohash_0.wav")
    with pytest.raises(ArtifactError, match="has clips of 'learned'"):
        SpeechCommands().load(folder)


def test_links_that_lead_out_are_refused(folder: Path) -> None:
    path = folder / "cat" / "0_nohash_0.wav"
    path.rename(folder.parent / "elsewhere.wav")
    path.symlink_to(folder.parent / "elsewhere.wav")
    with pytest.raises(ArtifactError, match="is a link that leads out of"):
        SpeechCommands().load(folder)
    path.unlink()
    path.symlink_to(folder / "cat" / "2_nohash_0.wav")
    SpeechCommands().load(folder)
    (folder / "cat").rename(folder.parent / "cat")
    (folder / "cat").symlink_to(folder.parent / "cat")
    with pytest.raises(ArtifactError, match="is a link that leads out of"):
        SpeechCommands().load(folder)
