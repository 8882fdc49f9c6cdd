"""Trajectories of Hugging Face models: folders of checkpoints, and revisions in the cache of the hub."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("transformers")

import attnprobe as ap
from attnprobe.models.hugging_face.loading import library
from tests.capture.hugging_face_folders import write_images, write_model, write_table, write_text

pytestmark = pytest.mark.hf
STEPS = (0, 100, 2000)


@pytest.fixture(autouse=True)
def quiet() -> None:
    library()


def write_training(folder: Path, kind: str = "bert") -> Path:
    """A folder of checkpoints with their tokenizer once, beside them, and things that are none."""
    for step in STEPS:
        place = write_model(kind, folder / f"checkpoint-{step}", seed=step)
        for file in place.glob("tokenizer*"):
            shutil.move(file, folder / file.name)
    (folder / "checkpoint-3000").mkdir()
    (folder / "logs").mkdir()
    return folder


def bias(rows: list[dict], **where: object) -> dict[tuple[int, int], float]:
    found = [row for row in rows if row["quantity"] == "proximity_bias" and where.items() <= row.items()]
    return {(row["layer"], row["head"]): row["estimate"] for row in found}


def test_every_checkpoint_is_measured_as_it_is_alone(attnprobe) -> None:
    write_training(Path("out"))
    write_text(Path("book.txt"))
    data = ("--text", "book.txt", "--max-length", 12, "-n", 9, "--seed", 3)
    outcome = attnprobe("probe", "trajectory", "hf:out", *data, "--json", "--figure", "t", "--csv", "t.csv")
    rows, capture = (outcome.document()[key] for key in ("rows", "capture"))
    assert "checkpoint-3000 has no config.json" in outcome.err
    assert [*dict.fromkeys(row["step"] for row in rows)] == [*STEPS]
    assert {(row["run"], row["phase"]) for row in rows} == {("hf:out", None)}
    assert [*capture] == [f"hf:out, step {step}" for step in STEPS]
    assert Path("t.png").exists()
    assert Path("t.csv").read_text().count("\n") == 1 + len(rows)
    for step in STEPS:
        for file in Path("out").glob("tokenizer*"):
            shutil.copy(file, f"out/checkpoint-{step}")
        alone = attnprobe("probe", "proximity", f"hf:out/checkpoint-{step}", *data, "--null", "none", "--json")
        assert bias(rows, step=step) == pytest.approx(bias(alone.document()["rows"]))
    assert bias(rows, step=0) != pytest.approx(bias(rows, step=100), abs=1e-3)
    shown = attnprobe("probe", "trajectory", "hf:out", *data)
    assert "2000" in shown.out
    assert "by step 2000" in shown.out
    with pytest.warns(UserWarning, match="checkpoint-3000"):
        answer = ap.trajectory("hf:out", text="book.txt", max_length=12, sequences=9, seed=3)
    assert bias(answer.rows) == pytest.approx(bias(rows))


def test_labels_give_gradients_too(attnprobe) -> None:
    write_training(Path("out"), "gpt2")
    data = ("--text", write_table(Path("t.csv")), "--label-column", "answer", "--max-length", 9, "-n", 12)
    rows = attnprobe("probe", "trajectory", "hf:out", *data, "--json").document()["rows"]
    for step in STEPS:
        assert {"proximity_bias", "label.dependent.t", "reconstruction.t"} <= {
            row["quantity"] for row in rows if row["step"] == step
        }


def test_images(attnprobe) -> None:
    write_training(Path("out"), "vit")
    rows = attnprobe("probe", "trajectory", "hf:out", "--images", write_images(Path("i")), "--json").document()["rows"]
    assert {row["step"] for row in rows} == {*STEPS}


def test_revisions_in_the_cache_of_the_hub(attnprobe, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the hub's own client lays them out."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(Path("hub").absolute()))
    hub = Path("hub/models--nobody--tiny")
    for number, name in enumerate(("step512", "step0")):
        commit = f"{number}" * 40
        write_model("gpt2", hub / "snapshots" / commit, seed=number)
        (hub / "refs").mkdir(exist_ok=True)
        (hub / "refs" / name).write_text(commit)
    data = ("--text", write_text(Path("book.txt")), "-n", 9)
    both = attnprobe("probe", "trajectory", "hf:nobody/tiny@step512,step0", *data, "--json").document()["rows"]
    assert [*dict.fromkeys(row["step"] for row in both)] == [0, 512]
    for name, step in (("step512", 512), ("step0", 0)):
        one = attnprobe("probe", "proximity", f"hf:nobody/tiny@{name}", *data, "--null", "none", "--json")
        assert bias(one.document()["rows"]) == pytest.approx(bias(both, step=step))
    absent = attnprobe("probe", "proximity", "hf:nobody/tiny@step1024", *data)
    assert absent.code == 3
    absent.complains("no nobody/tiny@step1024", "--allow-download")


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("hf:out", 2, ["needs something to be run on"]),
        ("hf:out/logs", 3, ["holds no saved checkpoints", "checkpoint-100"]),
        ("hf:missing", 2, ["names no revisions"]),
        ("hf:a/b@main", 2, ["'main' does not say of which step"]),
        ("hf:a/b@step1,step01", 2, ["both of step 1"]),
        ("hf:a/b@step1,step2", 3, ["step1", "--allow-download"]),
    ],
)
def test_refusals(model: str, code: int, words: list[str], attnprobe) -> None:
    write_training(Path("out"))
    data = () if "something" in words[0] else ("--text", write_text(Path("book.txt")))
    outcome = attnprobe("probe", "trajectory", model, *data)
    assert outcome.code == code
    outcome.complains(*words, "hint:")


def test_errors_name_the_checkpoint(attnprobe) -> None:
    write_training(Path("out"))
    write_text(Path("book.txt"))
    Path("out/checkpoint-100/model.safetensors").write_bytes(b"nothing")
    outcome = attnprobe("probe", "trajectory", "hf:out", "--text", "book.txt")
    assert outcome.code == 3
    outcome.complains("checkpoint-100")
    good, bad = write_model("bert", Path("good")), write_model("bert", Path("bad"))
    outcome = attnprobe("probe", "proximity", f"hf:{good}", f"hf:{bad}", "--text", "book.txt", "--max-length", 49)
    outcome.complains("hf:good: --max-length 49")


def test_what_foreign_models_are_run_on_is_no_use_to_ours(attnprobe) -> None:
    outcome = attnprobe("probe", "trajectory", "runs/a", "--text", "book.txt")
    assert outcome.code == 2
    outcome.complains("--text is for models of Hugging Face", "hf:FOLDER")


def test_states_of_different_models_are_no_trajectory(attnprobe) -> None:
    write_model("bert", Path("out/step1"))
    write_model("gpt_neox", Path("out/step2"))
    write_text(Path("book.txt"))
    outcome = attnprobe("probe", "trajectory", "hf:out", "--text", "book.txt", "--max-length", 12, "-n", 9)
    assert outcome.code == 2
    outcome.complains("step2", "no state of the same model")
