"""What users install: the wheel, in a virtual environment of its own, used from another folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode != 0 and "hatchling" in finished.stderr:
        command.remove("--no-build-isolation")
        finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    [path] = folder.glob("*.whl")
    return path


def test_contents(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "attnprobe/py.typed",
        "attnprobe/presets/textures.toml",
        "attnprobe/presets/state_space/listops-s4.toml",
        "attnprobe/experiments/README.md",
        "theory/checks.py",
        "theory/README.md",
    ):
        assert wanted in names
    assert not [name for name in names if name.startswith("tests/")]
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"attnprobe", "theory"}


@pytest.mark.slow
def test_installed_wheel_runs_from_elsewhere(wheel: Path, tmp_path: Path) -> None:
    """The dependencies are those of this environment; attnprobe and theory come from the wheel alone."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    [site] = environment.glob("lib/python3*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    dependencies = [p for p in sys.path if p.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(dependencies))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> str:
        command = [environment / "bin" / "python", *arguments]
        finished = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, env=clean)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    for package in ("attnprobe", "theory"):
        assert run("-c", f"import {package}; print({package}.__file__)").startswith(str(site))
    assert run("-m", "attnprobe", "--version").startswith("attnprobe ")
    assert '"parameters"' in run("-m", "attnprobe", "train", "--dry-run", "--json")
    assert '"passed": true' in run("-m", "attnprobe", "theory", "verify", "--claims", "C1,C2", "--json")
