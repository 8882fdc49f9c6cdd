import dataclasses
import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from attnprobe.config import build, dump
from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.tasks.pathfinder import scenes
from attnprobe.tasks.pathfinder import task as pathfinder
from attnprobe.tasks.pathfinder.scenes import Scene, draw_scenes, grow_targets
from attnprobe.tasks.pathfinder.task import BLOCK, PUBLISHED, Pathfinder, Stream, collect
from attnprobe.tasks.sources import generated

EASY = Pathfinder(contour_length=6, n_train=70, n_validation=10, n_test=12)
# Bytes of three images with classes 0, 1, 1: a change means other data, so raise pathfinder.VERSION.
GOLDEN = {
    (32, 0): "23a210b962d53021",
    (32, 1): "feecec923a1f22f2",
    (64, 0): "04e94bb9025c4916",
    (64, 1): "06e517a24ffbcf27",
    (128, 0): "d2e723f6637f18f5",
    (128, 1): "0817eb228aa7c325",
    (256, 0): "9272222a0c1b27d9",
    (256, 1): "92f340e3174ded6c",
}


def test_inputs_labels_and_description() -> None:
    data = EASY.load()
    assert (data.spec.length, data.spec.classes, data.spec.levels, data.spec.grid) == (1024, 2, 256, (32, 32))
    assert data.train.inputs.shape == (70, 1024, 1)
    for split in data.splits().values():
        assert split.inputs.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        assert (split.inputs.amax((1, 2)) == 255).all()
        assert (split.inputs.amin((1, 2)) == 0).all()
        pairs = split.labels[: len(split) // 2 * 2].reshape(-1, 2)
        assert (pairs.sum(1) == 1).all()
    normal = (torch.tensor([0.0, 255.0]) - data.spec.mean[0]) / data.spec.std[0]
    assert normal.tolist() == [-1.0, 1.0]


def test_short_runs_see_means_of_the_same_images() -> None:
    whole, short = EASY.load(), dataclasses.replace(EASY, downsample=4).load()
    assert (short.spec.length, short.spec.grid) == (64, (8, 8))
    means = whole.test.inputs.view(-1, 8, 4, 8, 4).double().mean((2, 4)).flatten(1)
    assert (short.test.inputs[..., 0] - means).abs().max() <= 0.5
    assert torch.equal(short.test.labels, whole.test.labels)
    with pytest.raises(ConfigError, match="downsample"):
        dataclasses.replace(EASY, downsample=3)


def test_the_seed_decides_and_sizes_do_not() -> None:
    data, more = EASY.load(), dataclasses.replace(EASY, n_train=3 * BLOCK).load()
    assert data.fingerprint() == EASY.load().fingerprint()
    assert torch.equal(more.train.inputs[:70], data.train.inputs)
    assert torch.equal(more.test.inputs, data.test.inputs)
    other = dataclasses.replace(EASY, data_seed=1).load()
    seen = [split.inputs[:10] for split in (*data.splits().values(), *other.splits().values())]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(seen, 2))


def test_blocks_do_not_depend_on_each_other() -> None:
    """So they can be drawn by any number of processes; ListOps tests that such processes answer in order."""
    stream = Stream(scene=EASY.scene(), seed=3, split=0)
    images, labels = collect(stream, 3 * BLOCK)
    last_images, last_labels = pathfinder.draw_block(stream, 2)
    assert np.array_equal(images[2 * BLOCK :], last_images)
    assert np.array_equal(labels[2 * BLOCK :], last_labels)


@pytest.mark.parametrize(("side", "seed"), list(GOLDEN))
def test_golden_images(side: int, seed: int) -> None:
    images = draw_scenes(Pathfinder(side=side).scene(), np.array([0, 1, 1]), np.random.default_rng(seed))
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == GOLDEN[side, seed]


@pytest.mark.parametrize("side", [32, 128])
def test_the_class_says_whether_the_disks_share_a_contour(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chains, marks = [], []

    def grow(*arguments: object) -> object:
        result = grow_targets(*arguments)  # type: ignore[arg-type]
        chains.append([contour.anchor for contour in result[0]])
        return result

    monkeypatch.setattr(scenes, "grow_targets", grow)
    monkeypatch.setattr(scenes, "mark", lambda *arguments: marks.append(arguments[-1]))
    margins = (1,) if side == 32 else (2,)
    scene = dataclasses.replace(Pathfinder(side=side).scene(), paddle_margins=margins)
    labels = np.arange(40) % 2
    draw_scenes(scene, labels, np.random.default_rng(0))
    begins, ends = ([chain[:, place] for chain in chains[0]] for place in (0, -1))
    first, second = marks
    for i, label in enumerate(labels):
        from_contour = [c for c in (0, 1) if begins[c][i] == first[i]]
        to_contour = [c for c in (0, 1) if ends[c][i] == second[i]]
        assert len(from_contour) == 1
        assert (from_contour == to_contour) == (label == 1)


@pytest.mark.parametrize("side", [32, 256])
def test_contours_have_the_geometry_of_the_settings(side: int) -> None:
    scene = Pathfinder(side=side).scene()
    (margin,) = scene.paddle_margins
    table = scene.paddles(margin)
    targets, maps = grow_targets(scene, table, 50, np.random.default_rng(1))
    y, x = (
        (np.stack([chain.anchor for chain in targets]) // width) % table.width - table.rim for width in (table.width, 1)
    )
    assert y.shape == (2, 50, 14)
    assert min(y.min(), x.min()) >= 0
    assert max(y.max(), x.max()) < side
    between = np.hypot(y[0] - y[1], x[0] - x[1])[:, 0]
    assert abs(between - scene.seed_distance).max() <= 1
    stride = scene.paddle_length + 2 * margin
    steps = np.hypot(
        np.diff(y[..., 1:]), np.diff(x[..., 1:])
    )  # heads follow heads, but the first is drawn from its tail
    assert steps.max() <= stride + 2
    assert abs(np.median(steps) - stride) <= 1
    assert maps.reshape(50, table.width, -1)[:, : table.rim].max() == 0


def features(images: np.ndarray) -> dict[str, np.ndarray]:
    flat = images.reshape(len(images), -1)
    return {
        "sum": flat.sum(1, keepdims=True),
        "histogram": np.stack([np.bincount(i // 8, minlength=32) for i in flat]),
        "pixels": flat,
    }


@pytest.mark.slow
def test_no_statistic_of_single_pixels_tells_the_class() -> None:
    """A linear classifier by least squares; three standard errors of its accuracy are 3 %."""
    images, labels = collect(Stream(scene=EASY.scene(), seed=5, split=0), 5_056)
    everything, cut = features(images), 2_500
    for name, values in everything.items():
        values = (values - values.mean(0)) / (values.std(0) + 1e-9)
        values = np.concatenate([values, np.ones((len(values), 1))], 1)
        train, signs = values[:cut], 2.0 * labels[:cut] - 1
        weights = np.linalg.solve(train.T @ train + 0.1 * cut * np.eye(train.shape[1]), train.T @ signs)
        accuracy = ((values[cut:] @ weights > 0) == labels[cut:]).mean()
        print(f"{name}: accuracy {accuracy:.3f} on {len(labels) - cut} images")
        assert accuracy < 0.53, name


def test_every_published_kind_can_be_described() -> None:
    assert Pathfinder(contour_length=6).scene().distractor_length == 2
    assert [Pathfinder(contour_length=length).scene().distractors for length in (6, 9, 14)] == [10, 10, 10]
    assert [Pathfinder(side=side).scene().distractors for side in PUBLISHED] == [10, 11, 17, 15]
    shared = [Pathfinder(side=side, distractor_rule="per_length").scene().distractors for side in PUBLISHED]
    assert shared == [5, 5, 8, 7]
    assert Pathfinder(contour_length=9, distractor_rule="per_length").scene().distractors == 6
    assert Pathfinder(side=128, distractors=3).scene().distractors == 3
    assert list(PUBLISHED) == [32, 64, 128, 256]
    task = Pathfinder(side=128, paddle_margins=(2,), continuity=1.5)
    assert build(Pathfinder, dump(task)) == task
    assert (task.scene().continuity, task.scene().paddle_margins) == (1.5, (2,))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"side": 48}, "side"),
        ({"seed_distance": 8}, "seed_distance"),
        ({"seed_distance": 3}, "seed_distance"),
        ({"paddle_thickness": 0.7}, "paddle_thickness"),
        ({"paddle_margins": ()}, "paddle_margins"),
        ({"contour_length": 1}, "contour_length"),
        ({"distractor_length": 0}, "distractor_length"),
        ({"distractor_rule": "none"}, "distractor_rule"),
        ({"seeding": "other"}, "seeding"),
        ({"data_seed": -1}, "data_seed"),
        ({"n_train": 0}, "n_train"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field} "):
        Pathfinder(**settings)  # type: ignore[arg-type]


def test_contours_that_cannot_fit_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "HOPELESS", 1024)
    with pytest.raises(ConfigError, match="do not fit"):
        draw_scenes(Pathfinder(contour_length=60).scene(), np.zeros(2, int), np.random.default_rng(0))


def test_large_sets_are_kept_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = EASY.load().fingerprint()
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path))
    monkeypatch.setattr(pathfinder, "LARGE", 11)
    monkeypatch.setattr(generated, "cores", lambda: 1)
    assert EASY.load().fingerprint() == fresh
    folders = [path for path in (tmp_path / "generated").iterdir() if path.is_dir()]
    assert len(folders) == 2  # training and test images
    monkeypatch.setattr(pathfinder, "save", None)  # not called again
    assert EASY.load().fingerprint() == fresh
    header = json.loads((folders[0] / "settings.json").read_text())
    assert header["scene"]["contour_length"] == 6
    (folders[0] / "images.npy").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"images\.npy is damaged"):
        EASY.load()


def test_images_kept_under_the_old_seeding_rule_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path))
    monkeypatch.setattr(pathfinder, "LARGE", 11)
    monkeypatch.setattr(generated, "cores", lambda: 1)
    fresh = EASY.load().fingerprint()
    monkeypatch.setattr(pathfinder, "VERSION", 1)
    monkeypatch.setattr(pathfinder, "draw_block", lambda stream, block: (np.zeros((64, 32, 32)), np.zeros(64)))
    assert EASY.load().fingerprint() != fresh  # drawn anew, as another version
    monkeypatch.undo()
    assert pathfinder.VERSION == 2


def test_scenes_are_hashable_settings() -> None:
    assert isinstance(hash(EASY.scene()), int)
    assert Scene(**dataclasses.asdict(EASY.scene())) == EASY.scene()
