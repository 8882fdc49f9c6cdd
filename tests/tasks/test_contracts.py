"""What every task promises to those who use it, whatever it is about."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from attnprobe.config import build, dump
from attnprobe.errors import ArtifactError
from attnprobe.tasks import MASK_ID, TASKS, Data, Split, Task
from attnprobe.tasks.derived.subset import Subset, nested_prefix
from attnprobe.tasks.own import OWN
from attnprobe.tasks.sources.catalogue import TASK_SOURCES
from tests.tasks.true_formats import FEW, in_published_formats

READ = [name for name in TASKS if name in TASK_SOURCES]
GENERATED = [name for name in TASKS if name not in TASK_SOURCES and name not in OWN]
FROM_FILES = [*READ, *OWN]
every_task = pytest.mark.parametrize("name", TASKS)


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return in_published_formats(tmp_path, monkeypatch)


def make(name: str, **changes: Any) -> Task:
    settings = {key: value for key, value in (FEW[name] | changes).items() if value is not None}
    return build(TASKS[name], settings, "task")


@every_task
def test_the_sizes_are_those_asked_for(name: str, data_dir: Path) -> None:
    data = make(name).load(data_dir)
    sizes = [FEW[name][f"n_{split}"] for split in data.splits()]
    assert [len(split) for split in data.splits().values()] == sizes
    assert list(data.splits()) == ["train", "validation", "test"]


@every_task
@pytest.mark.parametrize("fraction", [None, 0.3])
def test_an_outline_says_beforehand_what_is_loaded(name: str, fraction: float | None, data_dir: Path) -> None:
    changes = {} if fraction is None else {"n_train": FEW[name]["n_train"] if name in GENERATED else None}
    task = make(name, fraction=fraction, **changes)
    outline = task.outline()
    assert (outline is not None) == (name in GENERATED)
    if outline is not None:
        data = task.load(data_dir)
        assert outline.spec == data.spec
        assert outline.sizes == {split: len(samples) for split, samples in data.splits().items()}


@pytest.mark.parametrize("name", GENERATED)
def test_a_fraction_of_generated_data_is_nested(name: str) -> None:
    """n_train is so for Pathfinder only; the settings of the others say that it is not."""
    small, large = (make(name, fraction=share).load().train for share in (0.3, 0.7))
    assert 0 < len(small) < len(large)
    assert torch.equal(large.inputs[: len(small)], small.inputs)
    assert torch.equal(large.labels[: len(small)], small.labels)


def test_an_outline_costs_no_drawing() -> None:
    outlines = [build(TASKS[name], {}, "task").outline() for name in GENERATED]
    assert [outline is not None and outline.sizes["train"] for outline in outlines] == [1000, 96_000, 160_000]
    for name in ("listops", "pathfinder"):
        assert build(TASKS[name], {"source": "published"}, "task").outline() is None


@every_task
def test_inputs_are_what_the_description_says(name: str, data_dir: Path) -> None:
    data = make(name).load(data_dir)
    spec = data.spec
    assert len(spec.mean) == len(spec.std) == spec.channels
    assert min(spec.std) > 0
    assert spec.grid is None or spec.grid[0] * spec.grid[1] == spec.length
    for split in data.splits().values():
        shape = (spec.length,) if spec.is_tokens else (spec.length, spec.channels)
        assert split.inputs.shape == (len(split), *((2,) if spec.pairs else ()), *shape)
        assert split.inputs.is_contiguous()
        if spec.vocabulary is not None:
            assert not split.inputs.is_floating_point()
            assert split.inputs.max().item() < spec.vocabulary
            assert split.inputs.min() > MASK_ID  # nothing is hidden before training hides it
        elif spec.levels is not None:
            assert not split.inputs.is_floating_point()
            assert split.inputs.min() >= 0
            assert split.inputs.max().item() < spec.levels
        else:
            assert split.inputs.isfinite().all()


@every_task
def test_labels_are_classes_or_numbers(name: str, data_dir: Path) -> None:
    data = make(name).load(data_dir)
    for split in data.splits().values():
        assert split.labels.shape == (len(split),)
        if data.spec.regression:
            assert (data.spec.classes, split.labels.dtype) == (1, torch.float32)
            assert split.labels.isfinite().all()
        else:
            assert split.labels.dtype == torch.int64
            assert split.labels.min() >= 0
            assert split.labels.max() < data.spec.classes


@every_task
def test_lengths_count_the_real_positions(name: str, data_dir: Path) -> None:
    data = make(name).load(data_dir)
    for split in data.splits().values():
        batch = split.batch(torch.arange(len(split)))
        if split.lengths is None:
            assert batch.valid is None
            continue
        assert split.lengths.dtype == torch.int64
        assert split.lengths.shape == ((len(split), 2) if data.spec.pairs else (len(split),))
        assert split.lengths.min() >= 1
        assert split.lengths.max() <= data.spec.length
        assert batch.valid is not None
        assert torch.equal(batch.valid.sum(-1), split.lengths)


@every_task
def test_loading_twice_gives_the_same_data(name: str, data_dir: Path) -> None:
    task = make(name)
    data = task.load(data_dir)
    assert data.fingerprint() == make(name).load(data_dir).fingerprint()
    other = make(name, n_train=FEW[name]["n_train"] - 1).load(data_dir)
    assert other.fingerprint() != data.fingerprint()
    assert other.spec == data.spec  # what a model must know does not depend on how much is used
    assert build(TASKS[name], dump(task)) == task
    assert hash(build(TASKS[name], dump(task))) == hash(task)


def rows(data: Data) -> list[set[bytes]]:
    return [{sample.numpy().tobytes() for sample in split.inputs} for split in data.splits().values()]


@every_task
def test_no_sample_is_in_two_splits(name: str, data_dir: Path) -> None:
    assert not any(one & other for one, other in itertools.combinations(rows(make(name).load(data_dir)), 2))


@pytest.mark.parametrize("name", ["textures", "pathfinder"])
def test_drawn_classes_are_balanced(name: str, data_dir: Path) -> None:
    data = make(name, n_train=41).load(data_dir)
    for split in data.splits().values():
        counts = torch.bincount(split.labels, minlength=data.spec.classes)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("name", GENERATED)
def test_drawn_data_depend_on_their_seed_and_on_no_file(name: str, data_dir: Path, tmp_path: Path) -> None:
    first = make(name).load(tmp_path / "nowhere")
    assert first.fingerprint() == make(name).load(data_dir).fingerprint()
    for ours, others in zip(rows(first), rows(make(name, data_seed=1).load()), strict=True):
        assert ours != others


@pytest.mark.parametrize("name", READ)
def test_data_that_are_not_there_are_one_clear_error(name: str, data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"^no complete copy of .*: looked in") as error:
        make(name).load(tmp_path / "empty")
    assert f"attnprobe data fetch {TASK_SOURCES[name][0] if name != 'bidmc' else 'bidmc-hr'}" in error.value.hint
    with pytest.raises(ArtifactError, match=f"^there is no folder {tmp_path / 'nowhere'}$"):
        make(name).load(tmp_path / "nowhere")


@every_task
def test_fractions_are_nested_and_leave_the_rest(name: str, data_dir: Path) -> None:
    n_train = None if name in FROM_FILES else FEW[name]["n_train"]
    whole = make(name, n_train=n_train).load(data_dir)
    order = torch.from_numpy(nested_prefix(len(whole.train), len(whole.train)))
    for fraction in (0.01, 0.3, 0.5, 1.0):
        part = make(name, n_train=n_train, fraction=fraction).load(data_dir)
        assert_equal(part.train, whole.train.take(order[: max(1, int(fraction * len(order)))]))
        assert_equal(part.validation, whole.validation)
        assert_equal(part.test, whole.test)


@pytest.mark.parametrize("name", FROM_FILES)
def test_numbers_of_samples_follow_the_same_rule(name: str, data_dir: Path) -> None:
    assert issubclass(TASKS[name], Subset)
    whole = make(name, n_train=None).load(data_dir)
    order = torch.from_numpy(nested_prefix(len(whole.train), len(whole.train)))
    for count in (1, 3, FEW[name]["n_train"]):
        assert_equal(make(name, n_train=count).load(data_dir).train, whole.train.take(order[:count]))


@pytest.mark.parametrize("name", [name for name in TASKS if name != "bidmc"])
def test_training_labels_can_be_noisy(name: str, data_dir: Path) -> None:
    clean, noisy = (make(name, label_noise=p).load(data_dir) for p in (0.0, 0.9))
    assert torch.equal(clean.train.inputs, noisy.train.inputs)
    assert (clean.train.labels != noisy.train.labels).double().mean() > 0.5
    assert noisy.train.labels.max() < noisy.spec.classes
    assert_equal(noisy.validation, clean.validation)
    assert_equal(noisy.test, clean.test)


def assert_equal(one: Split, other: Split) -> None:
    for field in dataclasses.fields(Split):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert (a is None and b is None) or torch.equal(a, b), field.name
