"""What only Ray has: shares of GPUs, and a cluster that leaves nothing behind."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnprobe.errors import ConfigError
from attnprobe.studies.executors import opened
from attnprobe.studies.schedule import carry_out
from tests.studies.executors import jobs
from tests.studies.executors.jobs import job, wait_until

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own threads and sockets are ended by the system


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, for this test alone; its name is short, for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)


def processes_of(folder: Path) -> list[str]:
    """Those that were told of the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        found += [text] if f"{folder}/" in text else []
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds processes by /proc")
def test_a_cluster_of_ones_own_leaves_nothing_behind(temporary: Path, tmp_path: Path) -> None:
    with opened("ray", folder=tmp_path / "executor", jobs=2) as executor:
        assert carry_out([job("a", jobs.record, tmp_path, "a")], executor) == {"a": None}
        assert processes_of(temporary), "they are found"
        assert list(temporary.iterdir())
    wait_until(lambda: not processes_of(temporary), 60)
    assert not list(temporary.iterdir())
    assert not (tmp_path / "executor").exists()


@pytest.mark.slow
def test_a_share_of_a_gpu_that_is_not_there_is_refused(temporary: Path, tmp_path: Path) -> None:
    refused = pytest.raises(ConfigError, match="of 0 GPUs is more than there is")
    with refused, opened("ray", folder=tmp_path, jobs=1, options=["gpus_per_run=0.25"]):
        pass


@pytest.mark.parametrize("share", ["-1", "1.5"])
def test_impossible_shares_are_refused(share: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gpus_per_run must be a share"):
        opened("ray", folder=tmp_path, options=[f"gpus_per_run={share}"])
