"""Every executor that is installed, by name with the options of a test."""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from attnprobe.studies.executors import opened
from attnprobe.studies.executors.executor import Executor

NEEDED = {"ray": "ray", "slurm": "submitit"}
OPTIONS = {"slurm": ["cluster=local"]}
Open = Callable[[], AbstractContextManager[Executor]]


def marked(name: str) -> object:
    missing = name in NEEDED and importlib.util.find_spec(NEEDED[name]) is None
    # Ray's own threads and sockets are ended by the system
    quiet = pytest.mark.filterwarnings("ignore")
    return pytest.param(name, marks=[pytest.mark.skipif(missing, reason="needs the extra grid"), quiet])


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of a queue find the modules of tests."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


@pytest.fixture(params=[marked(name) for name in ("serial", "processes", "ray", "slurm")])
def executor(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[marked(name) for name in ("processes", "ray", "slurm")])
def two_at_a_time(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """The executor with two workers; what it may leave behind lies in its folder."""

    @contextlib.contextmanager
    def open_it() -> Iterator[Executor]:
        options = OPTIONS.get(request.param, [])
        with opened(request.param, folder=tmp_path / "executor", jobs=2, options=options) as found:
            yield found

    return open_it
