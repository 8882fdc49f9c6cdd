"""Speech Commands v0.02: one second of sound at 16 kHz, which of 35 words is spoken? (Warden 2018.)

Preparation as in Amos et al. 2023: the official lists name validation and test clips, shorter clips are continued with
silence, and every one of the 16000 time positions is standardised by its own mean and deviation over training clips.
Runs on a few processor cores can average neighbouring samples first (``downsample``).
"""

import dataclasses
import wave
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from attnprobe.config import require
from attnprobe.errors import ArtifactError
from attnprobe.files import reading
from attnprobe.tasks.data import Data, Spec, Split
from attnprobe.tasks.derived.pooling import require_downsample, shorten
from attnprobe.tasks.derived.subset import Subset
from attnprobe.tasks.sources.catalogue import TASK_SOURCES
from attnprobe.tasks.sources.copies import files_of, find, require_inside

RATE = LENGTH = 16_000
BITS = 16
HINT = "run `attnprobe data verify speech-commands`, then get the data again"
FULL_SCALE = float(1 << 15)  # 16-bit samples / FULL_SCALE lie in [-1, 1)
EPSILON = 1e-5
BLOCK = 256  # clips standardised at once

# The order gives the labels: the one of the published code.
# fmt: off
WORDS = (
    "bed", "cat", "down", "five", "forward", "go", "house", "left", "marvin", "no", "on", "right", "sheila", "tree",
    "up", "visual", "yes", "backward", "bird", "dog", "eight", "follow", "four", "happy", "learn", "nine", "off", "one",
    "seven", "six", "stop", "three", "two", "wow", "zero",
)
# fmt: on


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechCommands(Subset):
    standardise: Literal["position", "clips"] = "position"  # clips: one mean and deviation for all positions
    double_scaling: bool = False  # divide by 2^15 twice, as published: the inputs then stay small beside EPSILON
    padding: Literal["silence", "masked"] = "silence"  # masked: short clips keep their length, padding is not real
    downsample: int = 1  # so many neighbouring samples are averaged to one position

    def __post_init__(self) -> None:
        super().__post_init__()
        require_downsample(self.downsample, LENGTH)
        possible = self.standardise == "position" or not self.double_scaling
        require(possible, "double_scaling", "only changes standardise = 'position'")

    def load(self, data_dir: Path | None = None) -> Data:
        _, folder = find(TASK_SOURCES["speech-commands"], data_dir)
        splits = {name: self._read(paths) for name, paths in list_clips(folder).items()}
        train = splits["train"].inputs.numpy()
        length = train.shape[1]
        if self.standardise == "clips":
            mean, std = moments(train, axis=None)
            spec = Spec(length=length, classes=len(WORDS), mean=(float(mean),), std=(float(std),))
        else:
            mean, std = moments(train, axis=0)
            scale = FULL_SCALE**2 if self.double_scaling else FULL_SCALE
            for name, split in splits.items():
                values = standardised(split.inputs.numpy(), mean, std, scale)
                splits[name] = dataclasses.replace(split, inputs=torch.from_numpy(values))
            spec = Spec(length=length, classes=len(WORDS))
        return self.apply(Data(spec=spec, train=splits["train"], validation=splits["validation"], test=splits["test"]))

    def _read(self, paths: list[Path]) -> Split:
        length = LENGTH // self.downsample
        clips = np.zeros((len(paths), length, 1), np.int16)
        lengths = np.zeros(len(paths), np.int64)
        whole = np.zeros(LENGTH, np.int16)
        for row, path in enumerate(paths):
            samples = read_clip(path)
            whole[: len(samples)], whole[len(samples) :] = samples, 0
            clips[row, :, 0] = shorten(whole, self.downsample, axes=(0,))
            lengths[row] = min(-(-len(samples) // self.downsample), length)
        labels = np.array([WORDS.index(path.parent.name) for path in paths], np.int64)
        masked = torch.from_numpy(lengths) if self.padding == "masked" else None
        return Split(inputs=torch.from_numpy(clips), labels=torch.from_numpy(labels), lengths=masked)


def list_clips(folder: Path) -> dict[str, list[Path]]:
    """The clips of each split, word by word and by name; the official lists must name clips that exist, and once."""
    lists = {"validation": "validation_list.txt", "test": "testing_list.txt"}
    split_of: dict[str, str] = {}
    for split, file in lists.items():
        for name in read_list(folder / file):
            if name in split_of:
                raise ArtifactError(f"{folder / file} names {name}, which was named before", hint=HINT)
            split_of[name] = split
    require_no_other_words(folder)
    splits: dict[str, list[Path]] = {"train": [], "validation": [], "test": []}
    for word in WORDS:
        paths = files_of(require_inside(folder / word, folder), ".wav") if (folder / word).is_dir() else []
        if not paths:
            raise ArtifactError(f"{folder} has no clips of the word {word!r}", hint=HINT)
        for path in paths:
            splits[split_of.pop(f"{word}/{path.name}", "train")].append(path)
    if split_of:
        raise ArtifactError(f"{folder} lacks {len(split_of)} listed clips, such as {next(iter(split_of))}", hint=HINT)
    empty = [name for name, paths in splits.items() if not paths]
    if empty:
        raise ArtifactError(f"{folder} has no clips for {empty[0]}", hint=HINT)
    return splits


def require_no_other_words(folder: Path) -> None:
    """Clips of words without a label would be left out; only folders such as _background_noise_ may be."""
    for path in sorted(folder.iterdir()):
        if (
            path.is_dir()
            and path.name not in WORDS
            and not path.name.startswith(("_", "."))
            and any(path.glob("*.wav"))
        ):
            hint = "move them elsewhere; the version v0.02 has 35 words"
            raise ArtifactError(f"{folder} has clips of {path.name!r}, which is none of the words", hint=hint)


def read_list(path: Path) -> list[str]:
    with reading(path, HINT):
        return path.read_text(encoding="utf-8").split()


def read_clip(path: Path) -> np.ndarray:
    """(at most 16000,) int16 samples; what the header says is checked before they are read."""
    with reading(path, HINT), wave.open(str(path), "rb") as sound:
        form = (sound.getframerate(), 8 * sound.getsampwidth(), sound.getnchannels())
        if form != (RATE, BITS, 1):
            found = f"{form[0]} Hz, {form[1]} bits, {form[2]} channels"
            raise ArtifactError(f"{path} is not {BITS}-bit mono sound at {RATE} Hz: {found}", hint=HINT)
        declared = sound.getnframes()
        if not 0 < declared <= LENGTH:
            raise ArtifactError(f"{path} has {declared} samples, expected 1 to {LENGTH}", hint=HINT)
        samples = np.frombuffer(sound.readframes(declared), np.int16)
    if len(samples) != declared:
        raise ArtifactError(f"{path} declares {declared} samples but holds {len(samples)}", hint=HINT)
    return samples


def moments(clips: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n - 1) over clips (n, length, 1): of each position (axis 0), or of all values.

    Sums of 16-bit samples and of their squares are exact in 64-bit integers.
    """
    total = square = np.int64(0)
    for start in range(0, len(clips), BLOCK):
        block = clips[start : start + BLOCK].astype(np.int64)
        total = total + block.sum(axis)
        square = square + (block**2).sum(axis)
    n = len(clips) if axis == 0 else clips.size
    mean = total / n
    variance = (square - total * mean) / max(n - 1, 1)
    return np.asarray(mean), np.sqrt(np.maximum(variance, 0))


def standardised(clips: np.ndarray, mean: np.ndarray, std: np.ndarray, scale: float) -> np.ndarray:
    """(clips / scale - mean / scale) / (std / scale + 1e-5) as float32."""
    out = np.empty(clips.shape, np.float32)
    for start in range(0, len(clips), BLOCK):
        block = slice(start, start + BLOCK)
        out[block] = (clips[block] - mean) / (std + scale * EPSILON)
    return out
