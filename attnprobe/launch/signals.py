"""Ctrl-C and the like: a request to save and stop between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_heard_by: threading.Event | None = None  # of the whole process, while somebody listens


@contextmanager
def stop_on_signal(*, second_ends: bool = True) -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one ends the process as usual if ``second_ends``.

    Within another such context it is that one's event: a request is one to all that runs here.
    """
    global _heard_by
    if _heard_by is not None:
        yield _heard_by
        return
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    earlier = {number: signal.getsignal(number) for number in SIGNALS}

    def request(number: int, frame: FrameType | None) -> None:
        stop.set()
        if second_ends:
            for known, handler in earlier.items():
                signal.signal(known, handler)

    for number in earlier:
        signal.signal(number, request)
    _heard_by = stop
    try:
        yield stop
    finally:
        _heard_by = None
        for number, handler in earlier.items():
            signal.signal(number, handler)


def listen_as_worker() -> threading.Event:
    """For the rest of this process: the event of ``stop_on_signal``, which SIGTERM sets.

    A terminal's Ctrl-C reaches all processes, but only the first one decides.
    """
    global _heard_by
    _heard_by = asked = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return asked
