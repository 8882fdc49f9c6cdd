"""Tests that need a CUDA device: ``ATTNPROBE_TEST_GPU=1 pytest -m gpu``. Not one of them has been run on a GPU yet."""

import os
import signal
import time

import pytest
import torch

WANTED = bool(os.environ.get("ATTNPROBE_TEST_GPU"))  # read here, since tests see no ATTNPROBE_ variables
BOX, LONGEST = 120.0, 45.0  # seconds of all tests in a process, and of one


class TimeBox:
    started: float | None = None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = None
    if not WANTED:
        reason = "needs a GPU: set ATTNPROBE_TEST_GPU=1"
    elif not torch.cuda.is_available():
        reason = "there is no CUDA device on this machine"
    for item in items:
        if "tests/gpu/" in item.nodeid:
            item.add_marker(pytest.mark.gpu)
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _time_box():
    """Together the tests end in time whatever hangs: one that runs longer than is left fails."""
    if TimeBox.started is None:
        TimeBox.started = time.monotonic()
    left = TimeBox.started + BOX - time.monotonic()
    assert left > 0, "the time box of the GPU tests is over"

    def late(number: int, frame: object) -> None:
        raise TimeoutError("this test took too long")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, min(LONGEST, left))
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    torch.cuda.empty_cache()
