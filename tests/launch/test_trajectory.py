"""What is measured while a run trains: a model's memory is planned once a phase, and nothing else changes by that."""

import json
from pathlib import Path

import pytest

from attnprobe import presets, run
from attnprobe.capture import ours
from attnprobe.config import override
from attnprobe.errors import ConfigError
from attnprobe.launch.trajectory import TrajectoryWriter, writer_for
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes import memory
from attnprobe.probes.alignment import memory as alignment_memory
from attnprobe.tasks.textures import Textures
from attnprobe.training.execution import Moment


def test_memory_is_planned_once_a_phase(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = Textures(side=5, n_train=20, n_validation=40, n_test=10).load()
    model = make_model(TransformerConfig(d_model=8, heads=2, d_mlp=8), data.spec, "values", seed=0)
    planned: list[int] = []
    for module in (memory, alignment_memory):
        whole = module.peak_bytes
        monkeypatch.setattr(module, "peak_bytes", lambda call, whole=whole: planned.append(1) or whole(call))
    writer = TrajectoryWriter(seed=3, folder=tmp_path, factor=2.0, sequences=16)
    counts = []
    for phase, step in (("pretrained", 0), ("pretrained", 1), ("pretrained", 2), ("finetuned", 0), ("finetuned", 1)):
        writer(Moment(phase=phase, step=step, model=model, data=data, objectives=()))
        counts.append(len(planned))
    assert counts[0] > 0
    assert counts == [counts[0]] * 3 + [2 * counts[0]] * 2
    rows = [json.loads(line) for line in (tmp_path / "trajectory.jsonl").read_text().splitlines()]
    numbers = {(r["phase"], r["step"]): [] for r in rows}
    for row in rows:
        numbers[row["phase"], row["step"]].append((row["quantity"], row["head"], row["estimate"], row["low"]))
    assert all(found == numbers["pretrained", 0] for found in numbers.values())  # the same model each time
    subject = ours.of(model, data.validation, seed=3)
    fresh = memory.pass_bytes(subject, subject.draw(16, 3))
    assert fresh in writer.subjects["finetuned"].footprints.values()


def test_models_without_scores_are_told_before_they_train(tmp_path) -> None:
    config = run.from_table(override(presets.read_table("textures"), ["model.mixer=s4d"]))
    with pytest.raises(ConfigError, match="have not") as caught:
        writer_for(config, tmp_path, factor=2.0, sequences=16)
    assert "--probe-every" in caught.value.hint
