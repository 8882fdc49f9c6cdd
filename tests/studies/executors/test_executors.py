"""What holds for every executor."""

import functools
import os
import signal
import threading
from pathlib import Path

import pytest

from attnprobe.launch.workers import LostError
from attnprobe.studies.executors import opened
from attnprobe.studies.job import Job
from attnprobe.studies.schedule import Change, NotPossibleError, carry_out
from attnprobe.training.loop import Interrupted
from tests.studies.executors import jobs
from tests.studies.executors.conftest import OPTIONS, Open
from tests.studies.executors.jobs import job, recorded, wait_until


def pipeline(folder: Path) -> list[Job]:
    parts = tuple(f"part{n}" for n in range(3))
    first = [job(part, jobs.record, folder, part) for part in parts]
    return [job("sum", jobs.add_up, folder, "sum", parts, needs=parts), *first]


@pytest.mark.slow
def test_jobs_are_done_once_in_order_with_one_thread(executor: str, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    with opened(executor, folder=logs, options=OPTIONS.get(executor, [])) as opened_one:
        found = carry_out(pipeline(tmp_path), opened_one)
    assert set(found.values()) == {None}
    assert (tmp_path / "sum").read_text() == "3\n"
    for n in range(3):
        assert [line["threads"] for line in recorded(tmp_path, f"part{n}")] == [1]
    assert not logs.exists() or not list(logs.iterdir()), "nothing is left behind"


@pytest.mark.slow
def test_errors_come_back_as_a_user_is_told_them(executor: str, tmp_path: Path) -> None:
    work = [job("a", jobs.fail, "no luck"), job("b", jobs.divide, 0), job("c", jobs.allocate)]
    work += [job("d", jobs.record, tmp_path, "d"), job("e", jobs.record, tmp_path, "e", needs=("a",))]
    with opened(executor, folder=tmp_path / "logs", options=OPTIONS.get(executor, [])) as opened_one:
        found = carry_out(work, opened_one)
    assert str(found["a"]) == "no luck"
    assert found["a"].hint == "a hint"  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    assert "ZeroDivisionError" in str(found["b"])
    assert "not enough memory" in str(found["c"])
    assert found["d"] is None
    assert isinstance(found["e"], NotPossibleError)


@pytest.mark.slow
def test_a_killed_worker_costs_only_its_own_job(two_at_a_time: Open, tmp_path: Path) -> None:
    """``other`` begins before the kills and ends after them, in the same process."""
    more = [f"more{n}" for n in range(3)]
    work = [job("other", jobs.wait_for, tmp_path, "other", ("late",))]
    work += [job("killed", jobs.killed, tmp_path, "killed", 1), *(job(key, jobs.record, tmp_path, key) for key in more)]
    work += [job("late", jobs.record, tmp_path, "late", needs=("killed",))]
    changes: list[Change] = []
    with two_at_a_time() as executor:
        found = carry_out(work, executor, on_change=changes.append)
    assert set(found.values()) == {None}, found
    assert len({line["process"] for line in recorded(tmp_path, "killed")}) == 2
    for name in ("other", "late", *more):
        assert len(recorded(tmp_path, name)) == 1
    assert [c.job.key for c in changes if c.state == "lost"] == ["killed"]


@pytest.mark.slow
def test_a_job_whose_worker_is_always_killed_is_given_up(two_at_a_time: Open, tmp_path: Path) -> None:
    with two_at_a_time() as executor:
        found = carry_out([job("a", jobs.killed, tmp_path, "a", 99)], executor, retries=0)
    assert isinstance(found["a"], LostError)
    assert "job a" in str(found["a"])
    assert len(recorded(tmp_path, "a")) == 1


@pytest.mark.slow
def test_what_runs_saves_when_it_is_asked_to_stop(two_at_a_time: Open, tmp_path: Path) -> None:
    work = [job(name, jobs.train, tmp_path, name) for name in ("a", "b", "c")]
    stop = threading.Event()

    def ask() -> None:
        wait_until(lambda: all(recorded(tmp_path, name) for name in ("a", "b")))
        stop.set()

    with two_at_a_time() as executor, jobs.meanwhile(ask):
        found = carry_out(work, executor, should_stop=stop.is_set)
    assert all(isinstance(error, Interrupted) for error in found.values()), found
    assert (tmp_path / "a.saved").exists()
    assert (tmp_path / "b.saved").exists()
    assert not recorded(tmp_path, "c")
    assert not list(tmp_path.glob("executor/*")), "nothing is left behind"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds processes by /proc")
def test_what_still_runs_ends_with_the_context(two_at_a_time: Open, tmp_path: Path) -> None:
    """As after a second Ctrl-C."""

    class SecondError(Exception):
        pass

    def interrupt() -> bool:
        if recorded(tmp_path, "a"):
            raise SecondError
        return False

    with pytest.raises(SecondError), two_at_a_time() as executor:
        carry_out([job("a", jobs.sleep, tmp_path, "a", 100.0)], executor, should_stop=interrupt)
    process = int(recorded(tmp_path, "a")[0]["process"])
    wait_until(lambda: not is_alive(process), 20)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("idle", [False, True])
def test_processes_are_used_again_and_replaced_when_they_were_killed_idle(idle: bool, tmp_path: Path) -> None:
    with opened("processes", folder=tmp_path, jobs=1) as executor:
        for name in "abc":
            assert carry_out([job(name, jobs.record, tmp_path, name)], executor) == {name: None}
            if idle:
                os.kill(int(recorded(tmp_path, name)[0]["process"]), signal.SIGKILL)
    assert len({recorded(tmp_path, name)[0]["process"] for name in "abc"}) == (3 if idle else 1)


@pytest.mark.slow
def test_processes_start_jobs_only_while_their_memory_fits(tmp_path: Path) -> None:
    """Two of 0.4 GB fit into 1.9 GB less what two workers take, a third or one of 9 GB beside others does not."""
    sizes = {"a": 400, "b": 9000, "c": 400, "d": 700}
    work = [job(key, jobs.sleep, tmp_path, key, 0.7, memory=size * 10**6) for key, size in sizes.items()]
    with opened("processes", folder=tmp_path, jobs=4, options=["memory_gb=1.9"]) as executor:
        assert set(carry_out(work, executor).values()) == {None}
    spans = {
        key: (recorded(tmp_path, key)[0]["began"], float((tmp_path / f"{key}.ended").read_text())) for key in sizes
    }
    for key, (began, _) in spans.items():
        beside = [other for other, (first, last) in spans.items() if first <= began < last]
        assert len(beside) == 1 or sum(sizes[other] for other in beside) <= 1100, (key, beside)
    assert spans["c"][0] < spans["a"][1], "a small one overtakes the large one"


@pytest.mark.slow
def test_processes_take_no_more_than_there_is_work_for(tmp_path: Path) -> None:
    with opened("processes", folder=tmp_path, jobs=3) as executor:
        carry_out([Job(key="a", name="a", work=functools.partial(jobs.record, tmp_path, "a"))], executor)
        assert len(executor.workers.idle) == 1  # pyright: ignore[reportAttributeAccessIssue]
