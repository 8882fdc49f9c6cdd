"""One piece of work of a study: the seam between what is to be done and who does it."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Work that leaves its result where the next look finds it, so that doing it again after a crash does no harm.

    It raises what went wrong. Work of some length listens to ``launch.signals.stop_on_signal`` (as ``launch`` does),
    saves when it is asked to, and raises Interrupted.
    """

    key: str  # one of its own
    name: str  # for people
    work: Callable[[], None]  # can be pickled
    needs: tuple[str, ...] = ()  # keys of the jobs that must be done before
    memory: int = 0  # bytes it takes at most, as estimated; 0: not known
