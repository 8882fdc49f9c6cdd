import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from attnprobe.objectives import MaskedReconstruction
from attnprobe.opening import Opener, labels
from attnprobe.tasks.textures import Textures
from attnprobe.training.saved.checkpoint import load_checkpoint, save_checkpoint

ROW_KEYS = {
    "checkpoint", "layer", "head", "quantity", "estimate", "low", "high", "level", "n", "unit", "p_value",
}  # fmt: skip


def test_proximity_json(attnprobe, checkpoints) -> None:
    outcome = attnprobe("probe", "proximity", *checkpoints, "-n", 20, "--draws", 19, "--json")
    assert outcome.code == 0
    document = outcome.document()
    assert document["checkpoints"] == checkpoints
    assert all(set(row) >= ROW_KEYS for row in document["rows"])
    headline = [row for row in document["rows"] if row["quantity"] == "proximity_bias"]
    assert [(row["checkpoint"], row["layer"], row["head"]) for row in headline] == [
        (path, 0, head) for path in checkpoints for head in (0, 1)
    ]
    for row in headline:
        assert row["low"] <= row["estimate"] <= row["high"]
        assert 0.05 <= row["p_value"] <= 1
        assert row["null"] == "init"
        assert row["n"] == 20
    largest = [row for row in document["rows"] if row["quantity"] == "proximity_bias.max"]
    assert [(row["checkpoint"], row["layer"], row["head"]) for row in largest] == [(p, 0, None) for p in checkpoints]
    for row in largest:
        mine = [r["estimate"] for r in headline if r["checkpoint"] == row["checkpoint"]]
        assert row["estimate"] == max(mine)
        assert 0.05 <= row["p_value"] <= 1
    assert {row["null"] for row in document["rows"] if row["p_value"] is None} == {None}


def test_seeds_of_one_setting_are_pooled(attnprobe, tiny) -> None:
    assert attnprobe("train", *tiny, "--seeds", 3, "--together", "--out", "runs", "-q").code == 0
    paths = [f"runs/s{seed}/checkpoints/pretrained.pt" for seed in range(3)]
    paths_and_init = [*paths, "runs/s0/checkpoints/init.pt"]
    outcome = attnprobe("probe", "proximity", *paths_and_init, "-n", 20, "--draws", 19, "--json")
    document = outcome.document()
    pooled = [row for row in document["rows"] if row["head"] is None and row["checkpoint"] not in paths_and_init]
    assert {row["quantity"] for row in pooled} >= {"proximity_bias.mean", "proximity_bias.max"}
    assert {row["n"] for row in pooled} == {3}
    single = [r for r in document["rows"] if r["quantity"] == "proximity_bias" and r["checkpoint"] in paths]
    assert {row["seed"] for row in single} == {0, 1, 2}
    [mean] = [row for row in pooled if row["quantity"] == "proximity_bias.mean"]
    assert mean["estimate"] == pytest.approx(np.mean([row["estimate"] for row in single]))
    assert mean["low"] < mean["estimate"] < mean["high"]


def test_labels_name_the_run_where_there_are_several() -> None:
    init, final, other = (
        Path(f"runs/{name}.pt") for name in ("a/checkpoints/init", "a/checkpoints/final", "b/checkpoints/x")
    )
    assert labels([init]) == ["init"]
    assert labels([init, final]) == ["init", "final"]
    assert labels([init, other]) == ["a/init", "b/x"]
    assert labels([init, Path("old/a/checkpoints/init.pt")]) == [str(init), "old/a/checkpoints/init.pt"]


def test_pooled_seeds_bear_the_name_of_their_run_and_phase(attnprobe, tiny) -> None:
    assert attnprobe("train", *tiny, "--seeds", 2, "--together", "--out", "runs/wide", "-q").code == 0
    for seed in range(2):
        assert attnprobe("train", *tiny, "--seed", seed, "--out", f"runs/own-s{seed}", "--no-pretrain", "-q").code == 0
    paths = [f"runs/{run}{seed}/checkpoints/finetuned.pt" for run in ("wide/s", "own-s") for seed in range(2)]
    outcome = attnprobe("probe", "proximity", *paths, "-n", 20, "--draws", 19, "--json")
    pooled = [r["checkpoint"] for r in outcome.document()["rows"] if r["head"] is None and r["checkpoint"] not in paths]
    assert list(dict.fromkeys(pooled)) == ["wide finetuned, 2 seeds", "own finetuned, 2 seeds"]


@pytest.mark.parametrize(
    ("command", "options"),
    [("proximity", ()), ("alignment", ("--change-to",)), ("decompose", ()), ("intervene", ("--profile-of", "--swap"))],
)
def test_data_are_loaded_once_for_all_checkpoints_of_a_run(
    attnprobe, checkpoints, monkeypatch, command, options
) -> None:

    calls, load = [], Textures.load
    monkeypatch.setattr(Textures, "load", lambda task, *rest: (calls.append(task), load(task, *rest))[1])
    others = [word for option in options for word in (option, checkpoints[1])]
    paths = checkpoints[:1] if options else checkpoints
    assert attnprobe("probe", command, *paths, *others, "-n", 20, "-q").code == 0
    assert len(calls) == 1


def test_every_probe_gives_a_verdict_below_its_table_and_in_its_document(attnprobe, checkpoints) -> None:
    for command in ("proximity", "decompose", "intervene"):
        verdict = attnprobe("probe", command, checkpoints[0], "-n", 20, "--json").document()["verdict"]
        assert verdict.endswith(".")
        shown = attnprobe("probe", command, checkpoints[0], "-n", 20).out
        assert " ".join(shown.split()).endswith(" ".join(verdict.split()))
        assert attnprobe("probe", command, checkpoints[0], "-n", 20, "-q").out == ""


def test_proximity_files(attnprobe, checkpoints) -> None:
    outcome = attnprobe(
        "probe", "proximity", *checkpoints, "-n", 20, "--draws", 19,
        "--csv", "out/rows.csv", "--npz", "out/arrays.npz", "--figure", "out/proximity",
    )  # fmt: skip
    assert outcome.code == 0
    with Path("out/rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) >= ROW_KEYS
    quantities = {"proximity_bias", "proximity_bias.max", "score_sd", "near_mass", "distance", "entropy"}
    assert {row["quantity"] for row in rows} == quantities
    with np.load("out/arrays.npz") as arrays:
        axes = json.loads(str(arrays["pretrained/axes"]))
        for name, names in axes.items():
            assert arrays[f"pretrained/{name}"].ndim == len(names)
    for figure in ("proximity", "proximity_maps"):
        assert Path(f"out/{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert Path(f"out/{figure}.pdf").read_bytes().startswith(b"%PDF")
    assert "bias" in outcome.out
    for name in ("init", "pretrained", "finetuned"):
        assert name in outcome.out


def test_alignment(attnprobe, checkpoints) -> None:
    outcome = attnprobe(
        "probe", "alignment", checkpoints[0], "--change-to", checkpoints[1], "-n", 24, "--shuffles", 19,
        "--json", "--csv", "rows.csv", "--npz", "arrays.npz", "--figure", "alignment",
    )  # fmt: skip
    assert outcome.code == 0
    document = outcome.document()
    assert all(set(row) >= ROW_KEYS | {"direction"} for row in document["rows"])
    assert {"label.t", "label.t.null", "reconstruction.t"} <= {row["quantity"] for row in document["rows"]}
    assert "change" in {row["direction"] for row in document["rows"]}
    assert document["figures"]
    assert all(Path(path).exists() for path in [*document["figures"], "rows.csv", "arrays.npz"])
    quick = ("probe", "alignment", checkpoints[0], "-n", 24, "--shuffles", 19, "--orders", 19)
    assert "contrast r=2" in attnprobe(*quick).out
    assert "proximity r=2" in attnprobe(*quick, "--along", "proximity", "--null", "none").out
    few = attnprobe(*quick[:-1], 18)
    assert few.code == 2
    assert "take at least 19" in few.err


def test_intervene(attnprobe, checkpoints) -> None:
    outcome = attnprobe(
        "probe", "intervene", checkpoints[2], "--swap", checkpoints[0], "--profile-of", checkpoints[1],
        "--doses=-1,0,1", "-n", 20, "--controls", 2, "--json",
        "--csv", "rows.csv", "--npz", "arrays.npz", "--figure", "dose",
    )  # fmt: skip
    assert outcome.code == 0
    rows = outcome.document()["rows"]
    assert all(set(row) >= ROW_KEYS | {"kind", "dose", "controls"} for row in rows)
    injected = {"clamp", "injected", "injected shuffled", "injected - shuffled"}
    assert {row["kind"] for row in rows} >= {"own", "shuffled", "own - shuffled"} | injected
    unchanged = [r for r in rows if r["dose"] == 0 and r["quantity"] == "accuracy.change"]
    assert [r["estimate"] for r in unchanged] == [0.0] * 7
    assert Path("dose.png").exists()


def test_a_profile_of_another_geometry_is_refused_in_one_line(attnprobe, checkpoints, tiny) -> None:
    more = ["-s", "task.side=6", "--no-pretrain", "--out", "wider", "-q"]
    assert attnprobe("train", *tiny, *more).code == 0
    donor = "wider/checkpoints/init.pt"
    outcome = attnprobe("probe", "intervene", checkpoints[2], "--profile-of", donor, "-n", 20, "-q")
    assert outcome.code == 2
    outcome.complains("has positions (6, 6), this model has (5, 5)", "same layers, heads, positions")
    outcome = attnprobe("train", *tiny, "-s", f"model.score_profile={donor}", "--out", "given", "-q")
    assert outcome.code == 2
    outcome.complains("has positions 6 x 6, this model has 5 x 5")
    assert attnprobe("probe", "intervene", checkpoints[2], "--controls", 1).code == 2


@pytest.mark.parametrize("command", ["proximity", "alignment", "intervene"])
def test_unreadable_checkpoints(attnprobe, command: str, tmp_path: Path) -> None:
    outcome = attnprobe("probe", command, "missing.pt")
    assert outcome.code == 3
    outcome.complains("missing.pt does not exist")
    Path("text.pt").write_text("not a checkpoint")
    outcome = attnprobe("probe", command, "text.pt")
    assert outcome.code == 3
    outcome.complains("text.pt")
    torch.save({"other": 1}, "foreign.pt")
    outcome = attnprobe("probe", command, "foreign.pt")
    assert outcome.code == 3
    outcome.complains("was not written by attnprobe")


def test_impossible_questions(attnprobe, checkpoints) -> None:
    outcome = attnprobe("probe", "proximity", checkpoints[0], "--radius", 99, "-n", 20)
    assert outcome.code in (2, 4)
    outcome.complains("radius")
    for option, value in (
        ("--doses", "a,b"),
        ("--doses", "nan"),
        ("--doses", "1,1"),
        ("--layers", "0.4"),
        ("--heads", "-1"),
    ):
        outcome = attnprobe("probe", "intervene", checkpoints[0], f"{option}={value}")
        assert outcome.code == 2
        outcome.complains(option)
    outcome = attnprobe("probe", "proximity", checkpoints[0], checkpoints[0])
    assert outcome.code == 2
    outcome.complains("given twice")
    outcome = attnprobe("probe", "proximity", checkpoints[0], "--figure", "/proc/nowhere/x", "-n", 20, "-q")
    assert outcome.code == 2
    outcome.complains("--figure", "cannot be written")
    for probe in ("proximity", "alignment", "intervene", "decompose"):
        outcome = attnprobe("probe", probe, checkpoints[0], "--memory-limit", 0.001, "-n", 20)
        assert outcome.code == 2
        outcome.complains("memory_limit is too small: 20 sequences need at least 17 MiB", "hint:")
    outcome = attnprobe("probe", "proximity", checkpoints[0], "--csv", "/proc/nowhere/x.csv", "-n", 20, "-q")
    assert outcome.code == 2
    outcome.complains("--csv", "cannot be written")


def test_broken_weights_name_layer_and_head(attnprobe, checkpoints) -> None:
    checkpoint = load_checkpoint(Path(checkpoints[0]))
    checkpoint.state["blocks.0.attention.q.weight"][5] = torch.nan  # the second head's rows start at 4
    save_checkpoint(Path("nan.pt"), checkpoint)
    for command in ("proximity", "alignment", "intervene", "decompose"):
        outcome = attnprobe("probe", command, "nan.pt", "-n", 20)
        assert outcome.code == 4
        outcome.complains("layer 0, head 1")


def test_decompose(attnprobe, checkpoints) -> None:
    outcome = attnprobe(
        "probe", "decompose", *checkpoints, "-n", 20, "--json", "--csv", "rows.csv", "--figure", "parts"
    )
    assert outcome.code == 0
    rows = outcome.document()["rows"]
    assert all(set(row) >= ROW_KEYS for row in rows)
    for path in checkpoints:
        for head in (0, 1):
            shares = [row["estimate"] for row in rows if (row["checkpoint"], row["head"]) == (path, head)]
            assert sum(shares) == pytest.approx(1.0)
    assert Path("parts.png").exists()
    assert "position" in attnprobe("probe", "decompose", checkpoints[0], "-n", 20).out


def test_a_finetuned_checkpoint_knows_the_reconstruction_of_the_run_it_started_from(attnprobe, tiny) -> None:
    wanted = ["-s", "pretrain.objective.loss=l2", "-s", "pretrain.objective.ratio=0.3"]
    assert attnprobe("train", *tiny, *wanted, "--no-finetune", "--out", "first", "-q").code == 0
    finetune = [part for part in tiny if not part.startswith("pretrain")]
    finetune = [part for i, part in enumerate(finetune) if part != "-s" or finetune[i + 1 : i + 2] not in ([], ["-s"])]
    source = ["--pretrained", "first/checkpoints/pretrained.pt"]
    assert attnprobe("train", *finetune, *source, "--out", "second", "-q").code == 0
    for name in ("init", "finetuned"):
        opened = Opener(device="cpu").open(Path(f"second/checkpoints/{name}.pt"))
        assert opened.subject().reconstruction == MaskedReconstruction(ratio=0.3, loss="l2")


def test_frozen_queries_and_keys_can_be_probed(attnprobe, tiny) -> None:
    arguments = [*tiny, "-s", "finetune.freeze=qk", "--probe-every", 2, "--probe-sequences", 12]
    assert attnprobe("train", *arguments, "--out", "run", "-q").code == 0
    assert attnprobe("probe", "alignment", "run/checkpoints/finetuned.pt", "-n", 20, "--shuffles", 19, "-q").code == 0


def test_fewer_sequences_than_asked_for_are_said(attnprobe, checkpoints) -> None:
    for probe, *options in (
        ("proximity", "--draws", 19), ("alignment", "--shuffles", 19), ("decompose",),
        ("intervene", "--doses=0"),
    ):  # fmt: skip
        outcome = attnprobe("probe", probe, checkpoints[0], *options, "-n", 99, "--json")
        there = 40 if probe == "alignment" else 30
        assert f"only {there} sequences in this split, not 99" in outcome.err
        ns = {row["n"] for row in outcome.document()["rows"]}
        assert there in ns
        assert 99 not in ns
    assert "only" not in attnprobe("probe", "decompose", checkpoints[0], "-n", 30).err
    assert attnprobe("probe", "decompose", checkpoints[0], "-n", 99, "-q").err == ""
