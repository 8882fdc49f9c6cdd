"""attnprobe reproduce, with every fault it should see."""

import json
from pathlib import Path

import pytest
import torch


def change(path: Path, **values) -> None:
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | values))


def test_a_run_repeats_its_bits(attnprobe, trained, tmp_path) -> None:
    outcome = attnprobe("reproduce", trained, "--out", "again", "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.document()
    assert found["passed"]
    assert [row["name"] for row in found["weights"]] == ["init", "pretrained", "finetuned"]
    assert all(row["equal"] and row["largest"] == 0 for row in found["weights"])
    assert {row["quantity"] for row in found["results"]} >= {"test_loss", "test_accuracy", "train_loss"}
    assert all(row["difference"] == 0 for row in found["results"])
    assert found["settings"] == found["versions"] == found["data"] == found["notes"] == []
    assert "equal bit for bit" in found["verdict"]
    assert (tmp_path / "again" / "result.json").exists()


def test_results_that_differ_are_exit_code_5(attnprobe, trained) -> None:
    result = json.loads((trained / "result.json").read_text())
    change(trained / "result.json", test_loss=result["test_loss"] * 1.01)
    change(trained / "manifest.json", torch="1.0", restarts={"finetuned": [{"update": 3, "back_to": 0}]})
    outcome = attnprobe("reproduce", trained)
    assert outcome.code == 5
    for word in ("Not reproduced", "Results differ by 0.0099 at most", "differs in torch", "depend on the clock"):
        assert word in " ".join(outcome.out.split()), word
    outcome = attnprobe("reproduce", trained, "--tolerance", "0.02", "--json")
    assert outcome.code == 0
    assert outcome.document()["versions"] == [{"key": "torch", "a": ["1.0"], "b": [str(torch.__version__)]}]


def test_other_weights_are_told(attnprobe, trained) -> None:
    path = trained / "checkpoints" / "pretrained.pt"
    document = torch.load(path, weights_only=True)
    document["state"]["label_head.weight"][0, 0] += 0.5
    torch.save(document, path)
    rows = {row["name"]: row for row in attnprobe("reproduce", trained, "--json").document()["weights"]}
    assert not rows["pretrained"]["equal"]
    assert rows["pretrained"]["largest"] == pytest.approx(0.5, rel=1e-3)
    assert rows["finetuned"]["equal"]


def test_other_data_are_refused_before_training(attnprobe, trained) -> None:
    change(trained / "manifest.json", data_sha256={"pretrained": "0" * 64, "finetuned": "0" * 64})
    outcome = attnprobe("reproduce", trained, "--out", "again")
    assert outcome.code == 3
    outcome.complains("data of the pretrained phase are not those")
    assert not Path("again").exists()


@pytest.mark.parametrize("lost", ["result.json", "manifest.json", "run.toml", "checkpoints/finetuned.pt"])
def test_records_that_are_not_whole_are_refused(attnprobe, trained, lost) -> None:
    (trained / lost).unlink()
    outcome = attnprobe("reproduce", trained)
    assert outcome.code == 3
    outcome.complains("finetuned.pt" if lost.endswith("pt") else "run")
