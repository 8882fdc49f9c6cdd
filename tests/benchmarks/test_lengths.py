"""The suite on padding: all peers train on the same samples, and a sample's loss does not depend on its batch."""

import dataclasses
import json

import pytest
import torch

from attnprobe.bench.rounds import GateError
from attnprobe.files import to_json
from attnprobe.models import TransformerConfig
from attnprobe.tasks.listops.task import ListOps
from tests.benchmarks import lengths
from tests.benchmarks.lengths import Lengths, gate, make_peers, rounds_of_buckets, run_lengths

CPU = torch.device("cpu")
TASK = ListOps(min_length=10, max_length=60, max_depth=4, max_args=4, n_train=120, n_validation=1, n_test=1)
SMALL = Lengths(task=TASK, model=TransformerConfig(d_model=12, heads=2, d_mlp=17, layers=2), batch=5, steps=3, rounds=2)


def test_everybody_trains_on_the_same_samples_of_all_lengths() -> None:
    data = SMALL.task.load(None)
    peers = make_peers(SMALL, data, "float32")
    rounds = rounds_of_buckets(SMALL, data.train)
    assert len(rounds) == 3
    for buckets in rounds:
        seen = [torch.cat(c.batches(buckets).index).sort().values for c in peers.values()]
        assert all(torch.equal(samples, seen[0]) for samples in seen)
        assert len(seen[0].unique()) == SMALL.steps * SMALL.batch
        assert buckets.lengths == tuple(sorted(buckets.lengths))
    padded = peers["padded, as published"].batches(rounds[0])
    assert padded[0].inputs.shape[1] == data.spec.length
    assert not torch.equal(padded.index[0], rounds[0].index[0])


def test_the_record() -> None:
    document, page = run_lengths(SMALL, "attnprobe bench", device=CPU, precision="float32", say=lambda text: None)
    rows = {row["batches"]: row for row in json.loads(to_json(document))["rows"]}
    assert list(rows) == ["padded, as published", "buckets", "buckets again"]
    assert rows["padded, as published"]["times faster than padded"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert all(row["tokens/s"]["low"] > 0 for row in rows.values())
    assert document["largest_loss_difference"] < 1e-5
    assert "| buckets again |" in page
    assert torch.__version__ in page


def test_another_computation_does_not_pass_the_gate(monkeypatch) -> None:
    data = SMALL.task.load(None)
    peers = make_peers(SMALL, data, "float32")
    buckets = rounds_of_buckets(SMALL, data.train)[0]
    assert gate(peers, buckets, 1e-5) < 1e-5
    with torch.no_grad():
        peers["buckets"].trainer.model.label_head.bias[3] += 0.01
    with pytest.raises(GateError, match="depends on its batch"):
        gate(peers, buckets, 1e-5)
    monkeypatch.setattr(lengths, "TOLERANCE", {"float32": -1.0})
    with pytest.raises(GateError):
        run_lengths(dataclasses.replace(SMALL, rounds=1), "", device=CPU, precision="float32", say=lambda text: None)
