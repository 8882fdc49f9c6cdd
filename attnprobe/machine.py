"""What this machine is: devices, cores, processor, installed packages, clock."""

import contextlib
import datetime
import importlib.metadata
import multiprocessing
import os
import platform
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from attnprobe.errors import ConfigError, RunError

if TYPE_CHECKING:
    import torch


def choose_device(name: str) -> "torch.device":
    """auto, cpu, cuda or cuda:N; RunError if it is not there."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError, OverflowError):
        raise ConfigError(f"unknown device {name!r}", hint="choose auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):  # mps has no float64, in which losses are added up
        raise ConfigError(f"{device.type} devices are not supported", hint="choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RunError(f"there is no {device.type} device on this machine", hint="use --device auto or --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RunError(
            f"there are only {torch.cuda.device_count()} CUDA devices, so {name!r} does not exist",
            hint="use --device auto, or a smaller number; they are counted from 0",
        )
    return device


def synchronise(device: "torch.device") -> None:
    """Wait until the device has done all it was asked for, before a clock is read."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """End this process at once when the one that started it has ended, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def free_memory(device: "torch.device") -> int | None:
    """Bytes that may still be asked for, below a limit on the process (ulimit -v) too; None where the system does not
    say.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    known = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min([*known, *_below_limit()], default=None)


def _below_limit() -> list[int]:
    """Bytes of addresses left to this process, if they are limited."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return []
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return [max(0, limit - pages * resource.getpagesize())]


def processor_name() -> str:
    """The processor's own name where the system tells it (Linux), else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def installed_version(package: str) -> str | None:
    """None if the package is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def memory() -> int:
    """Bytes that this machine, or the container this process runs in, has in all."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else []
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):  # control groups of version 2 and 1
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            sizes.append(int(Path("/sys/fs/cgroup", limit).read_text()))
    return min(sizes, default=2**63)
