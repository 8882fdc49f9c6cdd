"""A resume.pt that does not fit is refused before anything is loaded: wrong moments would crash the interpreter."""

import copy
import shutil
from pathlib import Path

import pytest
import torch

from attnprobe.errors import ArtifactError
from attnprobe.training.execute import execute
from attnprobe.training.saved.resuming import read_resume

CPU = torch.device("cpu")
PHASES = ("pretrained", "finetuned")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """The resume.pt of a run that was stopped in its second phase's second epoch."""
    from attnprobe import presets, run
    from attnprobe.config import override
    from attnprobe.training.loop import Interrupted
    from tests.training.conftest import SMALL, Silent

    asked = iter(range(10**6))
    out = tmp_path_factory.mktemp("resume") / "run"
    config = run.from_table(override(presets.read_table("textures"), SMALL))
    with pytest.raises(Interrupted):
        execute(config, out, device=CPU, monitor=Silent(), should_stop=lambda: next(asked) == 18)
    return out


@pytest.fixture
def refused(saved: Path, tmp_path: Path, small, monitor):
    """Give resume.pt another content and go on; the error."""

    def refuse(document: dict) -> ArtifactError:
        before = (saved / "resume.pt").read_bytes()
        torch.save(document, saved / "resume.pt")
        try:
            with pytest.raises(ArtifactError) as caught:
                execute(small(), saved, device=CPU, monitor=monitor, resume=True)
        finally:
            (saved / "resume.pt").write_bytes(before)
        assert "\n" not in str(caught.value)
        assert caught.value.hint
        return caught.value

    return refuse


@pytest.fixture
def document(saved: Path) -> dict:
    return read_resume(saved / "resume.pt", PHASES)


WRONG = {
    "larger": lambda t: torch.zeros([2 * n for n in t.shape] or [2], dtype=t.dtype),
    "smaller": lambda t: torch.zeros([max(n - 1, 0) for n in t.shape] or [0], dtype=t.dtype),
    "scalar": lambda t: torch.zeros(() if t.dim() else (1,), dtype=t.dtype),
    "more axes": lambda t: t[None],
    "double": lambda t: t.double(),
    "half": lambda t: t.half(),
    "whole": lambda t: t.long(),
    "no tensor": lambda t: 3.0,
    "nothing": lambda t: None,
}


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq", "step"])
@pytest.mark.parametrize("wrong", WRONG)
def test_moments_of_a_wrong_kind(refused, document: dict, name: str, wrong: str) -> None:
    state = document["trainer"]["optimizer"]["state"]
    for number in (min(state), max(state)):
        changed = copy.deepcopy(document)
        moments = changed["trainer"]["optimizer"]["state"][number]
        moments[name] = WRONG[wrong](moments[name])
        assert "resume.pt" in str(refused(changed))


def test_tensors_and_optimizers_of_another_model(refused, document: dict) -> None:
    for part in ("model", "progress"):
        for change in WRONG.values():
            changed = copy.deepcopy(document)
            tensors = changed["trainer"][part]
            tensors = tensors["best_state"] if part == "progress" else tensors
            tensors["norm.weight"] = change(tensors["norm.weight"])
            message = str(refused(changed))
            assert "norm.weight" in message or "missing" in message
    changed = copy.deepcopy(document)
    del changed["trainer"]["optimizer"]["state"][0]["exp_avg"]
    refused(changed)
    changed = copy.deepcopy(document)
    changed["trainer"]["optimizer"]["state"][10**6] = changed["trainer"]["optimizer"]["state"][0]
    refused(changed)
    changed = copy.deepcopy(document)
    changed["trainer"]["optimizer"]["param_groups"][0]["params"] = [0]
    refused(changed)


def test_settings_of_the_optimizer_are_those_of_the_run(saved: Path, document: dict, small) -> None:
    """What the file says of betas or the arithmetic is not believed."""
    from attnprobe.models import make_model
    from attnprobe.tasks import Task
    from attnprobe.training.loop import Trainer

    config = small()
    task: Task = config.task
    data, phase = task.load(), config.finetune
    assert phase is not None
    model = make_model(config.model, data.spec, "values", seed=0)
    trainer = Trainer(model, data, "finetuned", phase, config.engine, seed=0)
    group = document["trainer"]["optimizer"]["param_groups"][0]
    group["betas"], group["foreach"], group["eps"] = "nonsense", True, -1.0
    trainer.load_state_dict(document["trainer"])
    found = trainer.optimizer.param_groups[0]
    assert (found["betas"], found["eps"]) == ((0.9, 0.999), 1e-8)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("step", [-1, 10**9, 2.5, None, "x", True, 3]),
        ("sums", [torch.zeros(4), torch.zeros(3, dtype=torch.int64), 3, None]),
        ("best_epoch", [-1, 99, 0.5, None]),
        ("improved", [-1, 99, 0.5, None]),
        ("plateau", [{"stalled": -1}, {"best": "x"}, {"other": 1}, 3]),
        ("best_numbers", [{}, {"validation_accuracy": "high"}, 3, None, {"other": 1.0}]),
        ("best_state", [{}, 3, None]),
        ("unknown", [1]),
    ],
)
def test_impossible_progress(refused, document: dict, field: str, values: list) -> None:
    for value in values:
        changed = copy.deepcopy(document)
        changed["trainer"]["progress"][field] = value
        if field == "step" and value == 3:  # within the first epoch: no epoch can be the best of none
            assert "best" in str(refused(changed))
        else:
            refused(changed)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("phase", ["pretrained", "init", 3, None]),
        ("finished", [[], ["finetuned"], 3, "pretrained"]),
        ("seconds", [-1.0, float("nan"), float("inf"), "long"]),
        ("sizes", [{"metrics.jsonl": -1}, {"metrics.jsonl": "long"}, {3: 3}, 3]),
        ("trainer", [{}, 3, None]),
    ],
)
def test_impossible_places(refused, document: dict, field: str, values: list) -> None:
    for value in values:
        refused(document | {field: value})


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_a_truncated_file_says_how_to_go_on_without_it(
    saved: Path, share: float, small, monitor, tmp_path: Path
) -> None:
    content = (saved / "resume.pt").read_bytes()
    shutil.copytree(saved, tmp_path / "run")
    (tmp_path / "run" / "resume.pt").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArtifactError, match=r"resume\.pt") as caught:
        execute(small(), tmp_path / "run", device=CPU, monitor=monitor, resume=True)
    assert "--overwrite" in caught.value.hint


def test_the_untouched_file_still_goes_on(saved: Path, small, monitor, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "run")
    execute(small(), tmp_path / "run", device=CPU, monitor=monitor, resume=True)
    assert (tmp_path / "run" / "result.json").exists()


def test_the_state_of_another_run_is_refused(refused, document) -> None:
    """As after copying files between the runs of two seeds."""
    document["run"]["seed"] = 1
    assert "was saved by a run with other settings" in str(refused(document))
