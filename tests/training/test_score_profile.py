"""model.score_profile in runs: where the profile comes from, what keeps it, and what is refused."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attnprobe.capture import ours
from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.launch.runs import launch
from attnprobe.probes.interventions.profiles import offset_profile
from attnprobe.scores.directions import Direction, norm_and_means
from attnprobe.training.execute import execute
from attnprobe.training.loop import Interrupted
from attnprobe.training.saved.checkpoint import load_checkpoint
from attnprobe.training.score_profile import SEED, SEQUENCES, check_score_profile, measured_profile
from attnprobe.training.updates.attention_kernels import Shape, deviation, has_known_fault, shape_of
from tests.training.equality import assert_equal_runs

CPU = torch.device("cpu")


@pytest.fixture
def donor(small, monitor, tmp_path) -> Path:
    execute(small("pretrain.epochs=1", "finetune.epochs=1"), tmp_path / "donor", device=CPU, monitor=monitor)
    return tmp_path / "donor" / "checkpoints" / "pretrained.pt"


def changes(donor: Path, *more: str) -> tuple[str, ...]:
    return (f"model.score_profile='{donor}'", "seed=5", *more)


def values(run: Path, stage: str) -> Tensor:
    return load_checkpoint(run / "checkpoints" / f"{stage}.pt").state["score_profile.values"]


def test_a_run_keeps_the_donors_profile_and_needs_it_once(small, monitor, donor, tmp_path) -> None:
    config, digest = small(*changes(donor)), hashlib.sha256(donor.read_bytes()).hexdigest()
    stop = iter(range(10**6))
    with pytest.raises(Interrupted):
        execute(config, tmp_path / "half", device=CPU, monitor=monitor, should_stop=lambda: next(stop) >= 15)
    execute(config, tmp_path / "whole", device=CPU, monitor=monitor)
    opened = load_checkpoint(donor)
    data = opened.task.load(None)
    subject = ours.of(opened.make_model(), data.train)
    wanted = offset_profile(subject, subject.draw(SEQUENCES, SEED)).float()
    for stage in ("init", "pretrained", "finetuned"):
        torch.testing.assert_close(values(tmp_path / "whole", stage), wanted, rtol=1e-5, atol=1e-6)
    noted = json.loads((tmp_path / "whole" / "manifest.json").read_text())["score_profile"]
    assert noted["path"] == str(donor)
    assert (noted["sequences"], noted["dose"], noted["shuffle"]) == (53, 1.0, None)
    assert noted["sha256"] == digest
    donor.unlink()
    execute(config, tmp_path / "half", device=CPU, monitor=monitor, resume=True)
    assert_equal_runs(tmp_path / "half", tmp_path / "whole")
    with torch.no_grad():
        load_checkpoint(tmp_path / "whole" / "checkpoints" / "finetuned.pt").make_model()
    with pytest.raises(ArtifactError, match=r"donor.*pretrained\.pt"):
        execute(config, tmp_path / "new", device=CPU, monitor=monitor)
    assert not (tmp_path / "new").exists()


def test_dose_multiplies_and_shuffle_keeps_values_and_norm(small, donor) -> None:
    def profile(*more: str) -> Tensor:
        return measured_profile(small(*changes(donor, *more)), lambda task: task.load(None), CPU)

    own, shuffled = profile(), profile("model.score_profile_shuffle=3")
    torch.testing.assert_close(profile("model.score_profile_dose=-2.5"), -2.5 * own)
    assert torch.equal(shuffled, profile("model.score_profile_shuffle=3"))
    assert not torch.equal(shuffled, profile("model.score_profile_shuffle=4"))
    ratio = shuffled.flatten(2).sort().values / own.flatten(2).sort().values
    torch.testing.assert_close(ratio, ratio[..., :1].expand_as(ratio), rtol=1e-9, atol=1e-9)
    opened = load_checkpoint(donor)
    space = ours.of(opened.make_model(), opened.task.load(None).train).space
    norms = [norm_and_means(space, Direction(name="", profile=p))[0] for p in (own, shuffled)]
    torch.testing.assert_close(*norms)


def test_members_of_an_ensemble_are_their_solo_runs(small, monitor, donor, tmp_path) -> None:
    make = lambda **how: contextlib.nullcontext(monitor)  # noqa: E731
    configs = [small(*changes(donor), f"seed={seed}") for seed in (1, 2)]
    runs = [(config, tmp_path / "together" / str(i), None) for i, config in enumerate(configs)]
    found = launch(runs, device="cpu", make_monitor=make, say=print, quiet=True, as_ensemble=True)
    for number, config in enumerate(configs):
        alone = execute(config, tmp_path / f"alone{number}", device=CPU, monitor=monitor)
        assert found[number]["test_loss"] == pytest.approx(alone["test_loss"], rel=1e-4)
        assert torch.equal(values(tmp_path / "together" / str(number), "finetuned"),
                           values(tmp_path / f"alone{number}", "finetuned"))  # fmt: skip


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.skipif(not os.environ.get("ATTNPROBE_TEST_COMPILE"), reason="takes a minute: set ATTNPROBE_TEST_COMPILE=1")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_compiled_updates_are_the_eager_ones(small, monitor, donor, tmp_path) -> None:
    results = [
        execute(small(*changes(donor), f"engine.mode={mode}"), tmp_path / mode, device=CPU, monitor=monitor)
        for mode in ("eager", "compiled")
    ]
    assert not [text for text in monitor.messages if "not possible" in text]
    assert results[0]["test_loss"] == pytest.approx(results[1]["test_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("model.layers=2", "has layers 1, this model has 2"),
        ("model.heads=3", "has heads 2, this model has 3"),
        ("task.side=7", "has positions 5 x 5, this model has 7 x 7"),
        ("model.causal=true", "has causal False, this model has True"),
    ],
)
def test_another_geometry_is_refused_before_anything_is_written(
    small, monitor, donor, tmp_path, change, reason
) -> None:
    config = dataclasses.replace(small(*changes(donor), change), pretrain=None)  # which would refuse causality itself
    with pytest.raises(ConfigError, match=reason):
        execute(config, tmp_path / "run", device=CPU, monitor=monitor)
    assert not (tmp_path / "run").exists()


def test_settings_that_need_each_other(small, donor) -> None:
    for lonely in ("model.score_profile_shuffle=1", "model.score_profile_dose=2.0"):
        with pytest.raises(ConfigError, match=r"needs a model\.score_profile"):
            small(lonely)
    with pytest.raises(ConfigError, match="must not be negative"):
        small(*changes(donor), "model.score_profile_shuffle=-1")
    config = small(*changes(donor))
    long = dataclasses.replace(load_checkpoint(donor).spec, grid=(35, 35), length=1225)
    with pytest.raises(ConfigError, match="1225 positions are more than the 1024"):
        check_score_profile(config, [long])


def test_a_donor_may_not_lie_in_the_folder_that_is_replaced(small, monitor, donor, tmp_path) -> None:
    with pytest.raises(ConfigError, match="lies in the folder"):
        execute(small(*changes(donor)), tmp_path / "donor", device=CPU, monitor=monitor, overwrite=True)
    assert donor.exists()


def test_kernels_are_tried_and_checked_with_what_is_added(small, donor) -> None:
    data = small().task.load(None)
    assert shape_of(small(*changes(donor)), small().finetune, data).biased
    assert not shape_of(small(), small().finetune, data).biased
    for masked, causal in ((False, False), (True, False), (False, True)):
        shape = Shape(sequences=3, heads=2, length=37, d_head=5, precision="float32", masked=masked, causal=causal,
                      biased=True)  # fmt: skip
        for kernel in ("flash", "math"):
            assert deviation(kernel, shape, CPU) < 1e-4
        assert has_known_fault("cudnn", shape)


def test_a_profile_that_stays_behind_is_told(small, monitor, donor, tmp_path) -> None:
    quick = "pretrain.epochs=1", "finetune.epochs=1"
    execute(small(*changes(donor), *quick), tmp_path / "given", device=CPU, monitor=monitor)
    assert not [text for text in monitor.messages if "stays behind" in text]
    source = tmp_path / "given" / "checkpoints" / "finetuned.pt"
    plain = dataclasses.replace(small("seed=5", *quick), pretrain=None, pretrained=source)
    execute(plain, tmp_path / "plain", device=CPU, monitor=monitor)
    assert [text for text in monitor.messages if "stays behind" in text and "score_profile.values" in text]
