"""attnprobe compare: same numbers as the runs' own, unlike sides refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def arms(attnprobe, tiny) -> None:
    """Two seeds of two arms in one folder, as the demo has them."""
    for seed in (0, 1):
        assert attnprobe("train", *tiny, "--seed", seed, "--out", f"runs/spt-s{seed}", "-q").code == 0
        more = ["--no-pretrain", "-s", "finetune.optimizer.lr=0.03"]
        assert attnprobe("train", *tiny, *more, "--seed", seed, "--out", f"runs/scratch-s{seed}", "-q").code == 0


def test_arms_are_paired_by_seed_and_by_sequence(attnprobe, arms) -> None:
    document = attnprobe("compare", "runs/scratch-s*", "runs/spt-s*", "--json").document()
    results = {row["folder"]: row for row in attnprobe("runs", "--json").document()["runs"]}
    accuracy = {
        name: [results[f"runs/{name}-s{seed}"]["test_accuracy"] for seed in (0, 1)] for name in ("scratch", "spt")
    }
    rows = [row for row in document["rows"] if row["quantity"] == "test_accuracy"]
    over_seeds, *over_sequences = rows
    assert (over_seeds["over"], over_seeds["n"], over_seeds["seed"]) == ("seeds", 2, None)
    assert over_seeds["a"] == pytest.approx(sum(accuracy["scratch"]) / 2)
    assert document["results"]["b"]["test_accuracy"] == pytest.approx(sum(accuracy["spt"]) / 2)
    for row, seed in zip(over_sequences, (0, 1), strict=True):
        assert (row["over"], row["seed"], row["n"]) == ("sequences", seed, 30)
        assert row["a"] == pytest.approx(accuracy["scratch"][seed])  # evaluated anew, as the run found it
        assert row["b"] == pytest.approx(accuracy["spt"][seed])
        assert row["estimate"] == pytest.approx((row["only_b_right"] - row["only_a_right"]) / 30)
    settings = {row["key"]: (row["a"], row["b"]) for row in document["settings"]}
    assert settings["finetune.optimizer.lr"] == ([0.03], [0.006])
    assert settings["pretrain.epochs"] == ([None], [1])
    assert "seed" not in settings
    assert document["versions"] == document["data"] == document["notes"] == []
    people = attnprobe("compare", "runs/scratch-s*", "runs/spt-s*")
    for words in ("pretrain.*", "22 settings (--full)", "paired over 2 seeds", "2 pairs of checkpoints"):
        assert words in people.out
    assert "pretrain.objective.ratio" in attnprobe("compare", "runs/scratch-s*", "runs/spt-s*", "--full").out


def test_single_runs_and_checkpoints(attnprobe, arms) -> None:
    runs = attnprobe("compare", "runs/scratch-s0", "runs/spt-s1", "--json").document()
    [accuracy, loss] = runs["rows"]
    assert accuracy["seed"] is None
    assert {row["key"]: row["a"] for row in runs["settings"]}["seed"] == [0]
    files = [f"runs/{name}/checkpoints/finetuned.pt" for name in ("scratch-s0", "spt-s1")]
    assert attnprobe("compare", *files, "--json").document()["rows"] == [accuracy, loss]
    shutil.copy(files[0], "alone.pt")
    alone = attnprobe("compare", "alone.pt", files[1], "-n", 11, "--json").document()
    assert [row["n"] for row in alone["rows"]] == [11, 11]
    assert alone["versions"] == []  # of a file alone nothing is known
    pretrained = [f"runs/spt-s{seed}/checkpoints/pretrained.pt" for seed in (0, 1)]
    [loss] = attnprobe("compare", *pretrained, "--json").document()["rows"]
    assert loss["quantity"] == "test_loss"
    itself = attnprobe("compare", files[0], files[0], "--json").document()
    assert itself["settings"] == []
    assert itself["rows"][0]["estimate"] == 0


def test_an_untrained_side_is_told(attnprobe, arms) -> None:
    outcome = attnprobe("compare", "runs/scratch-s0/checkpoints/init.pt", "runs/spt-s0")
    assert "init.pt (untrained)" in outcome.out
    assert "A is an untrained checkpoint (init). B has" in outcome.out
    assert "untrained" not in attnprobe("compare", "runs/scratch-s0", "runs/spt-s0").out


def test_a_side_whose_checkpoint_is_cut_off_is_refused(attnprobe, arms) -> None:
    path = Path("runs/scratch-s0/checkpoints/finetuned.pt")
    path.write_bytes(path.read_bytes()[:999])
    outcome = attnprobe("compare", "runs/scratch-s0", "runs/spt-s0")
    assert outcome.code == 3
    outcome.complains("finetuned.pt", "hint:")
    assert attnprobe("compare", "runs/scratch-s0", "runs/spt-s0", "--no-evaluate").code == 0


def test_unlike_sides_are_refused_without_force(attnprobe, tiny, arms) -> None:
    other = ["-s", "task.data_seed=1", "--seed", 0, "--out", "runs/other-s0"]
    assert attnprobe("train", *tiny, *other, "-q").code == 0
    for sides, words in (
        (("runs/spt-s0", "runs/other-s0"), "test data are not the same"),
        (("runs/spt-s0", "runs/other-s0", "--no-evaluate"), "fingerprints of their data are not the same"),
        (("runs/spt-s0", "runs/spt-s0/checkpoints/pretrained.pt"), "not trained for the same"),
    ):
        outcome = attnprobe("compare", *sides)
        assert outcome.code == 2
        outcome.complains(words, "--force compares them all the same")
        forced = attnprobe("compare", *sides, "--force", "--json").document()
        assert any(words in note for note in forced["notes"])
        assert bool([row for row in forced["rows"] if row["over"] == "sequences"]) == ("pretrained" in sides[1])


def test_other_tasks_are_refused(attnprobe, tiny, arms) -> None:
    text = Path("runs/spt-s1/run.toml").read_text()
    Path("runs/spt-s1/run.toml").write_text(text.replace('name = "textures"', 'name = "listops"'))
    outcome = attnprobe("compare", "runs/spt-s0", "runs/spt-s1")
    assert outcome.code == 2
    outcome.complains("A is of task textures, B of listops")


def test_sides_that_are_none(attnprobe, arms) -> None:
    Path("empty").mkdir()
    Path("runs/spt-s1/result.json").unlink()
    for side, code, words in (
        ("nowhere", 3, "nowhere does not exist"),
        ("nowhere*", 3, "does not exist"),
        ("empty", 3, "no finished run in empty"),
        ("runs/spt-s1", 3, "runs/spt-s1 is interrupted"),
        ("runs", 2, "holds several runs of seed 0"),
        ("runs/*/run.toml", 2, "names files"),
        ("missing.pt", 3, "missing.pt does not exist"),
    ):
        outcome = attnprobe("compare", side, "runs/spt-s0")
        assert outcome.code == code, outcome.err
        outcome.complains(words, "hint:")
    left = attnprobe("compare", "runs/spt-s*", "runs/scratch-s*", "--json")
    assert "warning: runs/spt-s1 is interrupted and left out" in left.err
    assert left.document()["notes"] == ["only the 1 seeds that both sides have are paired"]
    shutil.copytree("runs/scratch-s1", "mixed/a")
    shutil.copytree("runs/spt-s0", "mixed/b")
    attnprobe("compare", "mixed", "runs/spt-s0").complains("differ in more than the seed: ")


def test_without_data_only_records_are_compared(attnprobe, tiny, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    np.savez("mine.npz", inputs=generator.standard_normal((60, 5, 1)).astype("float32"), labels=np.arange(60) % 3)
    settings = [part for part in tiny[1::2] if not part.startswith("task.")]
    small = [part for setting in settings for part in ("-s", setting)]
    for seed in (0, 1):
        out = ["--seed", seed, "--out", f"runs/s{seed}", "-s", "task.path=mine.npz", "-q"]
        assert attnprobe("train", "arrays", *small, *out).code == 0
    Path("mine.npz").rename("gone.npz")
    document = attnprobe("compare", "runs/s0", "runs/s1", "--json").document()
    assert document["rows"] == []
    assert "checkpoints were not evaluated" in document["notes"][-1]
    assert "Nothing could be paired" in document["verdict"]
