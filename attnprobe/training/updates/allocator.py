"""How the C library treats memory that is freed."""

import contextlib
import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's names for what follows
KEPT, MAPPED = 2**29, 2**26  # bytes: free memory to keep, and the size from which a block is mapped on its own


def keep_freed_memory() -> None:
    """Let glibc keep what is freed instead of handing it back, to be faulted in anew at every evaluation.

    For processes that train; elsewhere memory limits matter more. Does nothing where there is no glibc.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(TRIM_THRESHOLD, KEPT)
        libc.mallopt(MMAP_THRESHOLD, MAPPED)
