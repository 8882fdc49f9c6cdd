"""The README's table of what can be added, carried out to the letter on a copy of the package."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from attnprobe.models.mixers import MIXERS

ROOT = Path(__file__).parents[2]
NEW = Path(__file__).parent / "extension"

# Row of the table -> the file of ours that is added, and where it goes; an objective is text of an existing file.
FILES = {
    "a task": ("stripes.py", "attnprobe/tasks/stripes.py"),
    "a mixer": ("averaging.py", "attnprobe/models/mixers/averaging.py"),
    "a claim": ("ordering.py", "theory/claims/ordering.py"),
    "a section of the page": ("fastest.py", "attnprobe/report/page/sections/fastest.py"),
    "a study": ("stripes-arms.toml", "experiments/stripes-arms.toml"),
    "a named run": ("stripes-averaging.toml", "attnprobe/presets/stripes-averaging.toml"),
}
# Row -> the dictionary or tuple that gets one entry, the file it stands in, the entry, and the import it needs.
ENTRIES = {
    "a task": (
        "TASKS", "attnprobe/tasks/by_name.py", '"stripes": Stripes,', "from attnprobe.tasks.stripes import Stripes"
    ),
    "an objective": ("OBJECTIVES", "attnprobe/objectives.py", '"copying": Copying,', None),
    "a mixer": (
        "MIXERS", "attnprobe/models/mixers/__init__.py", '"averaging": AveragingSettings,',
        "from attnprobe.models.mixers.averaging import AveragingSettings",
    ),
    "a claim": (
        "CLAIMS", "theory/checks.py", 'Claim(name="C99", title="Means of squares", rows=ordering.rows),',
        "from theory.claims import ordering",
    ),
    "a section of the page": (
        "SECTIONS", "attnprobe/report/page/sections/__init__.py", "fastest.section,",
        "from attnprobe.report.page.sections import fastest",
    ),
}  # fmt: skip
# A probe has two files, a sentence, and an entry in the tuple that the command line goes through.
PROBE = {
    "sharpness.py": "attnprobe/probes/sharpness.py",
    "command.py": "attnprobe/cli/probe/sharpness.py",
}
SENTENCE = """

def sharpness(records: list[Record]) -> str:
    return f"the largest weight is {max(r['estimate'] for r in records):.2f}"
"""


@dataclasses.dataclass(frozen=True)
class Copy:
    """A copy of the package to which everything was added."""

    path: Path

    def run(self, *arguments: str, code: int = 0) -> str:
        """What ``python -m attnprobe`` printed on stdout, or on stderr if it was to fail."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ATTNPROBE")}
        environment |= {"PYTHONPATH": str(self.path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "attnprobe", *arguments]
        done = subprocess.run(command, cwd=self.path / "work", env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr[-3000:]
        return done.stderr if code else done.stdout


def add(path: Path, name: str, entry: str, imported: str | None) -> None:
    """One line below the start of ``name``, and the import above all others of ours."""
    lines = path.read_text().splitlines()
    [start] = [n for n, line in enumerate(lines) if re.match(rf"{name}\b.*[({{]$", line)]
    lines.insert(start + 1, f"    {entry}")
    if imported is not None:
        lines.insert(next(n for n, line in enumerate(lines) if re.match(r"from (attnprobe|theory)\.", line)), imported)
    path.write_text("\n".join(lines) + "\n")


def add_probe(path: Path) -> None:
    for source, target in PROBE.items():
        shutil.copy(NEW / "probe" / source, path / target)
    verdicts, commands = path / "attnprobe/report/verdicts.py", path / "attnprobe/cli/probe/__init__.py"
    verdicts.write_text(verdicts.read_text() + SENTENCE)
    text = commands.read_text()
    assert text.count("import alignment, ") == text.count("in (proximity, ") == 1
    text = text.replace("import alignment, ", "import sharpness, alignment, ")
    commands.write_text(text.replace("in (proximity, ", "in (sharpness, proximity, "))


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    path = tmp_path_factory.mktemp("extended")
    for package in ("attnprobe", "theory", "experiments"):
        shutil.copytree(ROOT / package, path / package, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    for source, target in FILES.values():
        assert not (path / target).exists()
        shutil.copy(NEW / source, path / target)
    objectives = path / "attnprobe" / "objectives.py"
    before, name, after = objectives.read_text().partition("OBJECTIVES: dict")
    text = (NEW / "copying.py").read_text()
    objectives.write_text(before + text[text.index("@dataclasses") :] + "\n\n" + name + after)
    for name, file, entry, imported in ENTRIES.values():
        add(path / file, name, entry, imported)
    add_probe(path)
    (path / "work").mkdir()
    return Copy(path)


@pytest.fixture(scope="module")
def trained(extended: Copy) -> dict[str, Any]:
    """What training of the added preset printed."""
    return json.loads(extended.run("train", "stripes-averaging", "--out", "one", "--json"))


def table() -> dict[str, list[str]]:
    """First column -> the other two."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("| to add |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    return {first: rest for first, *rest in rows}


def test_every_row_of_the_table_is_carried_out_as_it_says() -> None:
    rows = table()
    assert rows.keys() == {*FILES, *ENTRIES, "a probe"}
    written, place = rows["a probe"]
    assert all(f"`{name}`" in written for name in ("probes/<name>.py", "cli/probe/<name>.py", "report/verdicts.py"))
    assert place == "`cli/probe/__init__.py`"
    for name, (_, target) in FILES.items():
        folder = str(Path(target).parent).removeprefix("attnprobe/")
        assert f"`{folder}/<name>{Path(target).suffix}`" in rows[name][0]
    for name, (variable, *_) in ENTRIES.items():
        assert f"`{variable}`" in rows[name][1]


@pytest.mark.slow
def test_what_was_added_is_listed_and_explained(extended: Copy) -> None:
    listed = json.loads(extended.run("presets", "--json"))
    assert listed["stripes-averaging"] == "Stripes, learned by averaging: what somebody else has added."
    for key, of, meaning in (
        ("task.noise", "stripes", "its standard deviation"),
        ("finetune.objective.power", "copying", "of the errors"),
        ("model.mixer.start", "averaging", "of the shares"),
    ):
        settings = json.loads(extended.run("settings", key, "--json"))["settings"]
        [found] = [setting for setting in settings if of in setting["of"]]
        assert (found["of"], found["meaning"]) == ([of], meaning)
    [mixer] = json.loads(extended.run("settings", "model.mixer.name", "--json"))["settings"]
    assert (mixer["default"], sorted(mixer["values"])) == ("attention", sorted([*MIXERS, "averaging"]))


@pytest.mark.slow
def test_what_was_added_is_drawn_trained_and_stacked(extended: Copy, trained: dict) -> None:
    described = json.loads(extended.run("data", "describe", "stripes", "--figure", "stripes.png", "--json"))
    assert (described["length"], described["classes"]) == (23, 2)
    assert (extended.path / "work" / "stripes.png").stat().st_size > 1000
    foretold = json.loads(extended.run("train", "stripes-averaging", "--dry-run", "--json"))
    assert foretold["parameters"] > 0
    assert trained["phase"] == "finetuned"
    states = {
        name: torch.load(extended.path / "work" / path, weights_only=True)["state"]
        for name, path in trained["checkpoints"].items()
    }
    share = "blocks.0.averaging.share"
    assert (states["init"][share] == 0.3).all()
    assert not torch.equal(states["pretrained"][share], states["init"][share])
    assert torch.equal(states["finetuned"][share], states["pretrained"][share])
    members = json.loads(
        extended.run("train", "stripes-averaging", "--seeds", "2", "--together", "--out", "two", "--json")
    )
    assert members["runs"][0]["train_loss"] == pytest.approx(trained["train_loss"], rel=1e-4)


@pytest.mark.slow
def test_what_was_added_is_probed_and_drawn_by_old_and_new_probes(extended: Copy, trained: dict) -> None:
    answer = extended.run("probe", "proximity", trained["checkpoints"]["init"], code=4)
    assert "mixer 'averaging' has no attention scores" in answer
    changes = (
        "-s",
        "model.mixer=attention",
        "-s",
        "model.heads=2",
        "-s",
        "finetune.transfer=qk",
        "-s",
        "finetune.freeze=qk",
    )
    extended.run("train", "stripes-averaging", *changes, "--out", "seen", "-q")
    found = json.loads(
        extended.run("probe", "proximity", "seen/checkpoints/pretrained.pt", "--figure", "seen", "--json")
    )
    assert {row["head"] for row in found["rows"]} >= {0, 1}
    assert all((extended.path / "work" / figure).stat().st_size > 1000 for figure in found["figures"])
    own = json.loads(
        extended.run(
            "probe", "sharpness", "seen/checkpoints/pretrained.pt", "--figure", "own", "--csv", "own.csv", "--json"
        )
    )
    assert {(row["quantity"], row["head"]) for row in own["rows"]} == {("sharpness", 0), ("sharpness", 1)}
    assert all(1 / 21 < row["low"] <= row["estimate"] <= row["high"] <= 1 for row in own["rows"])
    assert own["verdict"].startswith("the largest weight is 0.")
    assert all((extended.path / "work" / figure).stat().st_size > 1000 for figure in own["figures"])
    assert "sharpness" in (extended.path / "work" / "own.csv").read_text()


@pytest.mark.slow
def test_the_new_study_is_run_and_the_new_section_stands_on_the_page(extended: Copy, trained: dict) -> None:
    listed = json.loads(extended.run("study", "list", "--json"))
    assert "stripes-arms" in json.dumps(listed)
    extended.run("study", "run", "stripes-arms", "--scale", "smoke", "--executor", "serial", "-q")
    table = (extended.path / "work" / "studies" / "stripes-arms-smoke" / "table.md").read_text()
    assert "from scratch" in table
    extended.run("report", trained["run_dir"], "-o", "page.html", "--no-probes", "-q")
    assert "The fastest run" in (extended.path / "work" / "page.html").read_text()


@pytest.mark.slow
def test_the_new_claim_is_verified(extended: Copy) -> None:
    found = json.loads(extended.run("theory", "verify", "--claims", "C99", "--json"))
    assert found["passed"]
    assert [row["control"] for row in found["rows"]] == [False, True]
