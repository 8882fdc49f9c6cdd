"""What must hold before any work is done: fast help, no heavy imports, a version."""

import resource
import subprocess
import sys

import pytest

import attnprobe as package


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


HEAVY = ("torch", "numpy", "scipy", "matplotlib", "theory.checks")
LIGHT = [
    "--help",
    "presets",
    "presets --json",
    "data list",
    "data list --json",
    "settings",
    "runs experiments",
    "runs --help",
    "settings engine --json",
]


@pytest.mark.parametrize("command", LIGHT)
def test_light_commands_import_nothing_heavy(command: str) -> None:
    code = (
        f"import sys\nsys.argv = ['attnprobe', *{command.split()}]\nfrom attnprobe.cli import main\n"
        f"try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    assert run("-c", code).stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("command", "seconds"), [("--help", 0.3), ("presets", 0.5), ("data list", 0.5)])
def test_light_commands_are_fast(command: str, seconds: float) -> None:
    """Processor time of the whole process, so that a busy machine cannot fail it."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run("-m", "attnprobe", *command.split())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(3)) < seconds


def test_version() -> None:
    assert run("-m", "attnprobe", "--version").stdout == f"attnprobe {package.__version__}\n"
