"""Which jobs start when, and what becomes of the others; with an executor that does what a test says."""

import functools
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attnprobe.errors import ConfigError, RunError
from attnprobe.launch.signals import stop_on_signal
from attnprobe.launch.workers import LostError
from attnprobe.studies.executors import opened
from attnprobe.studies.executors.executor import Ended
from attnprobe.studies.job import Job
from attnprobe.studies.schedule import Change, NotPossibleError, carry_out
from attnprobe.training.loop import Interrupted


def job(key: str, *needs: str, work: Callable[[], None] = lambda: None) -> Job:
    return Job(key=key, name=f"job {key}", work=work, needs=needs)


def fail(message: str) -> None:
    raise RunError(message)


def interrupt() -> None:
    raise Interrupted


class Shuffled:
    """Carries out up to ``most`` jobs at a time, which end in any order; some are lost before they are done."""

    def __init__(self, most: int, losses: dict[str, int] | None = None, seed: int = 0) -> None:
        self.most, self.losses, self.chance = most, dict(losses or {}), random.Random(seed)
        self.held: dict[str, Job] = {}
        self.stopped = 0

    def has_room(self, job: Job) -> bool:
        return len(self.held) < self.most

    def submit(self, job: Job) -> None:
        assert self.has_room(job)
        self.held[job.key] = job

    def wait(self, seconds: float) -> Ended:
        found = self.held.pop(self.chance.choice(list(self.held)))
        if self.losses.get(found.key, 0) > 0:
            self.losses[found.key] -= 1
            return {found.key: LostError("its process was killed (signal 9)")}
        try:
            found.work()
        except Exception as error:
            return {found.key: error}
        return {found.key: None}

    def stop(self) -> None:
        self.stopped += 1


@pytest.mark.parametrize("most", [1, 3, 100])
def test_a_job_starts_when_all_that_it_needs_is_done(most: int) -> None:
    chance = random.Random(most)
    needs = {n: chance.sample(range(n), min(n, chance.randrange(3))) for n in range(113)}
    done: list[int] = []

    def work(n: int) -> None:
        assert set(needs[n]) <= set(done)
        done.append(n)

    jobs = [job(str(n), *map(str, needs[n]), work=functools.partial(work, n)) for n in needs]
    chance.shuffle(jobs)
    found = carry_out(jobs, Shuffled(most))
    assert found == {j.key: None for j in jobs}
    assert list(found) == [j.key for j in jobs]
    assert sorted(done) == list(needs)


def test_what_fails_stops_only_those_that_need_it() -> None:
    changes: list[Change] = []
    jobs = [
        job("a"), job("b", "a", work=lambda: fail("no luck")), job("c", "b", "f"), job("d", "c"), job("e", "a"),
        job("f"),
    ]  # fmt: skip
    found = carry_out(jobs, Shuffled(2), on_change=changes.append)
    assert [key for key, error in found.items() if error is None] == ["a", "e", "f"]
    assert str(found["b"]) == "no luck"
    for key in ("c", "d"):
        assert isinstance(found[key], NotPossibleError)
        assert str(found[key]) == "not possible: job b failed"
    states = {key: [c.state for c in changes if c.job.key == key] for key in found}
    assert states == {key: ["started", "done"] for key in "aef"} | {
        "b": ["started", "failed"], "c": ["not possible"], "d": ["not possible"],
    }  # fmt: skip


def test_a_lost_job_is_tried_again_but_not_for_ever() -> None:
    done: list[str] = []
    changes: list[Change] = []
    jobs = [job(key, work=functools.partial(done.append, key)) for key in "abc"] + [job("d", "b")]
    found = carry_out(jobs, Shuffled(2, {"a": 2, "b": 3}), on_change=changes.append, retries=2)
    assert found["a"] is None
    assert str(found["b"]) == "its process was killed (signal 9), 3 times"
    assert isinstance(found["d"], NotPossibleError)
    assert sorted(done) == ["a", "c"]
    assert [c.state for c in changes if c.job.key == "a"] == ["started", "lost", "started", "lost", "started", "done"]


@pytest.mark.parametrize("asked_by", ["caller", "job"])
def test_a_request_to_stop_asks_what_runs_and_begins_nothing_more(asked_by: str) -> None:
    done: list[str] = []

    def work(key: str) -> None:
        if key == "2" and asked_by == "job":
            raise Interrupted
        done.append(key)

    executor = Shuffled(1)
    jobs = [job(str(n), work=functools.partial(work, str(n))) for n in range(7)]
    found = carry_out(jobs, executor, should_stop=lambda: asked_by == "caller" and len(done) == 2)
    assert done == ["0", "1"]
    assert [key for key, error in found.items() if error is None] == done
    assert all(isinstance(found[str(n)], Interrupted) for n in range(2, 7))
    assert executor.stopped


@pytest.mark.parametrize(
    "jobs", [[job("a"), job("a")], [job("a", "b")], [job("a", "b"), job("b", "a")]], ids=["twice", "unknown", "circle"]
)
def test_impossible_plans_are_refused_before_anything_starts(jobs: list[Job]) -> None:
    with pytest.raises(ValueError):
        carry_out(jobs, Shuffled(1))


def test_serial_carries_out_in_order_in_this_process(tmp_path: Path) -> None:
    done: list[str] = []
    jobs = [job(key, work=functools.partial(done.append, key)) for key in "ab"]
    jobs += [job("c", work=lambda: print(1 // 0)), job("d", work=functools.partial(done.append, "d"))]
    with opened("serial", folder=tmp_path) as executor:
        found = carry_out(jobs, executor)
    assert done == ["a", "b", "d"]
    assert "ZeroDivisionError" in str(found["c"])
    assert not list(tmp_path.iterdir())


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """Also where tests were started in the background, with this signal ignored."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_serial_passes_a_signal_to_the_job_and_begins_no_other(tmp_path: Path) -> None:
    def work() -> None:
        with stop_on_signal() as stop:  # as ``launch`` does
            signal.raise_signal(signal.SIGINT)
            assert stop.is_set()
        raise Interrupted

    with opened("serial", folder=tmp_path) as executor, stop_on_signal() as stop:
        found = carry_out([job("a", work=work), job("b")], executor, should_stop=stop.is_set)
        assert all(isinstance(error, Interrupted) for error in found.values())
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # the second one ends


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("seral", [], "unknown executor 'seral'"),
        ("serial", ["thread=1"], "unknown setting 'executor.thread'"),
        ("serial", ["threads=0"], "threads must be greater than zero"),
        ("serial", ["threads"], "cannot read the setting 'threads'"),
    ],
)
def test_bad_choices_are_refused(name: str, options: list[str], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=complaint):
        opened(name, folder=tmp_path, options=options)
