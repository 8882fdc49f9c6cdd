"""Carrying a study out: each run once, whatever happens in between."""

import json
import math
import threading
from pathlib import Path

import pytest

from attnprobe.errors import ConfigError, RunError
from attnprobe.files.ownership import BusyError, one_writer
from attnprobe.studies.store.status import status
from attnprobe.studies.work.jobs import Asked, damaged, missing
from attnprobe.studies.work.measuring import PROBES
from tests.studies.conftest import STUDY

MEASURE = '\n[measures.bias]\nprobe = "proximity"\nquantity = "proximity_bias.max"\nsettings = { n = 23 }\n'


def key_of(asked, arm: str) -> str:
    return next(p.key for p in asked.runs if p.arm.place["arm"] == arm)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_run_once_and_the_pretraining_of_two_arms(study, run_all) -> None:
    asked = study(MEASURE, seeds=[0])
    ended = run_all(asked)
    assert len(ended) == 1 + 3 + 3  # one pretraining, three arms, three measurements
    assert set(ended.values()) == {None}
    outcomes = asked.outcomes()
    assert [o.place["arm"] for o in outcomes] == ["scratch", "qk", "all"]
    assert all({"test_accuracy", "bias", "seconds"} <= o.numbers.keys() for o in outcomes)
    assert "seed" not in outcomes[0].numbers
    assert outcomes[0].pretraining is None
    assert outcomes[1].pretraining == outcomes[2].pretraining != outcomes[1].folder
    before = files(asked.store.path)
    assert run_all(asked) == {}, "all is done"
    assert files(asked.store.path) == before
    more = run_all(study(MEASURE, seeds=[0, 1]))
    assert len(more) == 1 + 3 + 3, "only the further seed"


def test_a_pretraining_that_was_removed_is_only_missed_where_it_is_needed(study, run_all) -> None:
    asked = study(seeds=[0])
    run_all(asked)
    pretraining = next(p.pretraining for p in asked.runs if p.pretraining)
    (asked.store.run(pretraining) / "result.json").unlink()
    assert missing(Asked(request=asked)) == []
    more = '\n[measures.early]\nprobe = "proximity"\nquantity = "score_sd"\ncheckpoint = "pretrained"\n'
    names = {job.key for job in missing(Asked(request=study(more, seeds=[0])))}
    assert pretraining in names
    assert len(names) == 2


def test_the_trajectory_is_that_of_both_parts(study, run_all) -> None:
    asked = study(seeds=[0], text="trajectory_every = 4\n" + STUDY)
    run_all(asked)
    outcome = asked.outcomes()[2]
    phases = [
        {json.loads(line)["phase"] for line in (folder / "trajectory.jsonl").read_text().splitlines()}
        for folder in (outcome.pretraining, outcome.folder)
    ]
    assert phases == [{"pretrained"}, {"finetuned"}]


def test_what_fails_is_told_and_tried_again(study, run_all) -> None:
    diverging = '[axes.arm.wild]\nsettings = { "finetune.optimizer.lr" = 1e30 }\n'
    asked = study(diverging, seeds=[0])
    ended = run_all(asked)
    wild = key_of(asked, "wild")
    assert {key for key, error in ended.items() if error is not None} == {wild}
    found = status(asked)
    assert found["states"] | {"failed": 1, "done": 3} == found["states"]
    assert found["problems"][0]["run"] == "wild, seed 0"
    assert "diverged" in found["problems"][0]["reason"]
    assert set(run_all(asked)) == {wild}, "it is tried again, the others are not"


def test_damaged_runs_are_done_again_and_foreign_files_stay(study, run_all) -> None:
    asked = study(seeds=[0])
    run_all(asked)
    results = {o.place["arm"]: o.numbers["test_accuracy"] for o in asked.outcomes()}
    scratch, qk, whole = (asked.store.run(key_of(asked, arm)) for arm in ("scratch", "qk", "all"))
    (scratch / "result.json").write_text('{"phase": ')
    (scratch / "notes.txt").write_text("mine")
    checkpoint = qk / "checkpoints" / "finetuned.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:999])
    manifest = json.loads((whole / "manifest.json").read_text())
    (whole / "manifest.json").write_text(json.dumps(manifest | {"study": {"key": "another"}}))
    assert len(list(damaged(Asked(request=asked)))) == 3
    assert status(asked)["states"]["damaged"] == 2, "a checkpoint's size is looked at before a run only"
    assert set(run_all(asked).values()) == {None}
    assert {o.place["arm"]: o.numbers["test_accuracy"] for o in asked.outcomes()} == results
    assert (scratch / "notes.txt").read_text() == "mine"
    assert not list(damaged(Asked(request=asked)))


def test_a_checkpoint_that_cannot_be_opened_is_trained_again(study, run_all) -> None:
    asked = study(seeds=[0])
    run_all(asked)
    before = {o.place["arm"]: o.numbers["test_accuracy"] for o in asked.outcomes()}
    pretraining = next(p.pretraining for p in asked.runs if p.pretraining)
    checkpoint = asked.store.checkpoint(pretraining, "pretrained")
    checkpoint.write_bytes(b"\0" * checkpoint.stat().st_size)  # of the right size
    (asked.store.run(key_of(asked, "all")) / "result.json").write_text("")
    assert set(run_all(asked).values()) == {None}
    assert {o.place["arm"]: o.numbers["test_accuracy"] for o in asked.outcomes()} == before


def test_folders_of_others_are_left_alone(study, run_all, tmp_path: Path) -> None:
    asked = study(seeds=[0])
    asked.store.claim()
    folder = asked.store.run(key_of(asked, "scratch"))
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("somebody's")
    ended = run_all(asked)
    assert isinstance(ended[key_of(asked, "scratch")], Exception)
    assert files(folder) == {"result.json": b"somebody's"}
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="no folder of studies"):
        study(out=other).store.claim()


def test_runs_of_another_process_are_left_to_it_and_taken_up_after(study, run_all) -> None:
    asked = study(seeds=[0])
    asked.store.claim()
    busy = key_of(asked, "scratch")
    heard = []
    with one_writer(asked.store.run(busy)):
        released = threading.Event()

        def on_change(change) -> None:
            heard.append((change.job.key, change.state))

        thread = threading.Thread(target=lambda: (run_all(asked, on_change=on_change), released.set()))
        thread.start()
        while len([key for key, state in heard if state == "done"]) < 3:
            assert thread.is_alive()
            threading.Event().wait(0.05)
        assert status(asked)["states"]["running"] == 1 or not released.is_set()
        assert asked.store.result(busy) is None
    thread.join(60)
    assert released.is_set()
    assert heard[-1] == (busy, "done")
    assert asked.store.result(busy) is not None
    assert not asked.store.failure(busy).exists(), "to be busy is no failure"
    assert BusyError.exit_code == 2


def test_from_python(study) -> None:
    frame = study(seeds=[0]).run(device="cpu").to_frame()
    assert list(frame["arm"]) == ["scratch", "qk", "all"]
    assert frame["test_accuracy"].between(0, 1).all()
    wild = '[axes.arm.wild]\nsettings = { "finetune.optimizer.lr" = 1e30 }\n'
    with pytest.raises(RunError, match=r"1 of 1 jobs failed, the first because .*diverged"):
        study(wild, seeds=[0]).run(device="cpu")


def test_a_quantity_without_a_finite_number_is_measured_once(study, run_all, monkeypatch) -> None:
    monkeypatch.setitem(PROBES, "proximity", lambda path, work: [("proximity_bias.max", math.inf), ("score_sd", 1.0)])
    asked = study(MEASURE, seeds=[0])
    assert set(run_all(asked).values()) == {None}
    assert all("bias" not in o.numbers for o in asked.outcomes())
    written = (asked.store.path / "measures").iterdir()
    said = [json.loads(file.read_text())["numbers"] for file in written]
    assert said == [{"proximity_bias.max": None, "score_sd": 1.0}] * 3
    assert run_all(asked) == {}, "it is known that there is no number"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("proximity_bias.max", "proximity_bias.maxx", "did you mean 'proximity_bias.max'"),
        ("n = 23", "nn = 23", "unexpected keyword argument 'nn'"),
    ],
)
def test_measures_that_the_probe_does_not_know_are_told(study, run_all, old: str, new: str, reason: str) -> None:
    asked = study(MEASURE.replace(old, new), seeds=[0])
    run_all(study(MEASURE, seeds=[0]))  # the same measurement may be there already
    errors = [str(error) for error in run_all(asked).values() if error is not None]
    assert errors
    assert all(reason in error and "internal error" not in error for error in errors)
