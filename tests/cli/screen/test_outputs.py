"""No command replaces a file that attnprobe did not write as an output of the same kind."""

from pathlib import Path

import pytest


@pytest.fixture
def checkpoints(trained) -> list[str]:
    return [str(trained / "checkpoints" / f"{name}.pt") for name in ("init", "pretrained", "finetuned")]


def test_a_forgotten_file_name_costs_no_checkpoint(attnprobe, checkpoints) -> None:
    before = [Path(path).read_bytes() for path in checkpoints]
    first, *rest = checkpoints
    for option in ("--csv", "--npz", "--figure"):
        for words in ([option, first], [f"{option}={first}"]):
            outcome = attnprobe("probe", "proximity", *words, *rest, "-n", 20, "--draws", 19)
            if option == "--figure":  # a name without .png or .pdf is a stem
                assert outcome.code == 0
                continue
            assert outcome.code == 2
            outcome.complains(f"{option} {first} exists and is no", "forgotten")
    assert [Path(path).read_bytes() for path in checkpoints] == before


def test_a_figure_has_the_name_that_was_asked_for(attnprobe, checkpoints) -> None:
    outcome = attnprobe("probe", "proximity", checkpoints[0], "-n", 20, "--draws", 19, "--figure", "f.png", "--json")
    assert outcome.document()["figures"] == ["f.png", "f_maps.png"]
    assert sorted(path.name for path in Path.cwd().glob("f*")) == ["f.png", "f_maps.png"]


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (("data", "describe", "textures", "--figure", "sheet.png"), "sheet.png"),
        (("theory", "verify", "--figure", "out"), "out/c1_blind_spectrum.png"),
        (("bench", "--out", "out"), "out/bench-quick.json"),
        (("bench", "--out", "out"), "out/bench-quick.md"),
        (("demo", "--out", "out"), "out/summary.json"),
        (("demo", "--out", "out"), "out/proximity_maps.pdf"),
    ],
)
def test_every_command_looks_before_its_long_work(attnprobe, arguments: tuple[str, ...], file: str) -> None:
    Path("out").mkdir()
    Path(file).write_text("somebody's own")
    outcome = attnprobe(*arguments, "-q")
    assert outcome.code == 2
    outcome.complains(f"{file} exists and is no", "hint:")
    assert Path(file).read_text() == "somebody's own"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--csv", "/proc/nowhere/x.csv"), "--csv /proc/nowhere/x.csv cannot be written"),
        (("--csv", "file/x.csv"), "--csv file/x.csv cannot be written"),
        (("--npz", "/dev/full/x.npz"), "--npz /dev/full/x.npz cannot be written"),
        (("--figure", "folder/new", "--csv", "folder/new.png"), "--figure folder/new.png is also the file of --csv"),
        (("--csv", "rows", "--npz", "folder/../rows"), "--npz folder/../rows is also the file of --csv"),
        (("--csv", "folder"), "--csv folder is a folder"),
        (("--csv", "nowhere.pt"), "--csv nowhere.pt is also an input"),
    ],
)
@pytest.mark.parametrize("probe", ["proximity", "alignment", "intervene", "decompose"])
def test_outputs_are_checked_before_anything_is_read(attnprobe, probe, options, words) -> None:
    Path("file").touch()
    Path("folder").mkdir()
    outcome = attnprobe("probe", probe, "nowhere.pt", *options)  # opening it would be an error of another kind
    assert outcome.code == 2
    outcome.complains(words, "hint:")
    assert attnprobe("probe", probe, "nowhere.pt", "--csv", "new/rows.csv").code == 3


def test_outputs_of_trajectory_and_certify_are_checked_too(attnprobe) -> None:
    for command in (("probe", "trajectory"), ("theory", "certify")):
        outcome = attnprobe(*command, "nowhere", "--csv", "/proc/nowhere/x.csv")
        assert outcome.code == 2
        outcome.complains("--csv", "cannot be written")


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (("alignment", "nowhere.pt", "--change-to", "goal.pt"), "goal.pt"),
        (("intervene", "nowhere.pt", "--profile-of", "donor.pt"), "donor.pt"),
        (("intervene", "nowhere.pt", "--swap", "other.pt"), "other.pt"),
        (("trajectory", "run"), "run/trajectory.jsonl"),
    ],
)
def test_no_output_replaces_an_input_that_an_option_or_a_run_names(attnprobe, command, file) -> None:
    Path("run").mkdir()
    Path(file).write_text("precious")
    outcome = attnprobe("probe", *command, "--csv", file)
    assert outcome.code == 2
    outcome.complains(f"--csv {file} is also an input", "hint:")
    assert Path(file).read_text() == "precious"
