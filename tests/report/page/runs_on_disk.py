"""Run directories made without training: two arms of two seeds, one of them with names that are HTML."""

import json
from pathlib import Path

from attnprobe.files.ownership import mark

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>&\"'"
SETTINGS = """seed = {seed}
[task]
name = "textures"
n_test = 130
[model]
layers = 1
d_model = 8
[model.mixer]
name = "attention"
{pretrain}
[finetune]
epochs = 3
[finetune.objective]
name = "classification"
"""
PRETRAIN = '[pretrain]\nepochs = 2\n[pretrain.objective]\nname = "masked"\n'


def write_runs(folder: Path) -> Path:
    """scratch/s0, s1 and spt/s0, s1, finished; one that is interrupted, and one that is damaged."""
    for arm, pretrain, gain in (("scratch", "", 0.0), (f"spt {HOSTILE.replace('/', '')}", PRETRAIN, 0.25)):
        for seed in (0, 1):
            write_run(folder / arm / f"s{seed}", seed, pretrain, 0.5 + gain + 0.05 * seed)
    stopped = write_run(folder / "stopped", 7, PRETRAIN, 0.5)
    (stopped / "result.json").unlink()
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "finetuned", "ep')
    damaged = write_run(folder / "damaged", 0, "", 0.5)
    (damaged / "run.toml").write_text(f"{HOSTILE} [[")
    return folder


def write_run(folder: Path, seed: int, pretrain: str, accuracy: float) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    mark(folder, "run")
    (folder / "run.toml").write_text(SETTINGS.format(seed=seed, pretrain=pretrain))
    (folder / "checkpoints" / "finetuned.pt").write_bytes(b"no checkpoint")
    manifest = {"started": "2026-01-02T03:04:05+00:00", "argv": ["attnprobe", "train", HOSTILE], "torch": HOSTILE}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"data_sha256": {"finetuned": "ab" * 32}}))
    result = {"phase": "finetuned", "objective": "classification", "seed": seed, "seconds": 12.0, "test_loss": 1.0}
    splits = dict.fromkeys(("train_accuracy", "validation_accuracy", "test_accuracy"), accuracy)
    (folder / "result.json").write_text(json.dumps(result | splits))
    lines = [
        {"phase": phase, "epoch": epoch, "train_loss": 1 / epoch, "validation_loss": 1.5 / epoch + seed}
        | ({"train_accuracy": epoch / 4, "validation_accuracy": epoch / 5} if phase == "finetuned" else {})
        for phase, epochs in (("pretrained", 2 if pretrain else 0), ("finetuned", 3))
        for epoch in range(1, epochs + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    records = [
        {"run": "x", "seed": seed, "phase": phase, "step": step, "layer": 0, "head": head, "quantity": quantity,
         "direction": None, "estimate": 0.1 * step, "low": 0.1 * step - 0.05, "high": 0.1 * step + 0.05, "level": 0.95,
         "n": 32, "unit": "sd", "p_value": None}
        for phase in (["pretrained"] if pretrain else []) + ["finetuned"]
        for quantity in ("proximity_bias", "reconstruction.t", "label.dependent.t")
        for head in (0, 1)
        for step in (0, 1, 2, 4)
    ]  # fmt: skip
    (folder / "trajectory.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder
