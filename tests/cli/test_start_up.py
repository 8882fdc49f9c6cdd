"""What must hold before any work is done: fast help, no heavy imports, a version."""

import resource
import subprocess
import sys

import attnprobe as package


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['attnprobe', '--help']\nfrom attnprobe.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'numpy', 'scipy', 'matplotlib', 'theory.checks') if m in sys.modules])"
    )
    assert run("-c", code).stdout.splitlines()[-1] == "[]"


def test_help_takes_less_than_a_third_of_a_second() -> None:
    """Processor time of the whole process, so that a busy machine cannot fail it."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run("-m", "attnprobe", "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(3)) < 0.3


def test_version() -> None:
    assert run("-m", "attnprobe", "--version").stdout == f"attnprobe {package.__version__}\n"


def test_help_of_every_command_has_examples(attnprobe) -> None:
    commands = ["train", "demo", "presets", "probe proximity", "probe alignment", "probe intervene", "theory verify"]
    for command in commands:
        outcome = attnprobe(*command.split(), "--help")
        assert outcome.code == 0
        assert "Examples" in outcome.out, command
