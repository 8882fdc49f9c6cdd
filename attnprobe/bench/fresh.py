"""What only a fresh process can tell: time from its start to the first step's end, and its peak memory.

Run as a program with a peer's name and a problem: ``python -m attnprobe.bench.fresh NAME JSON DEVICE PRECISION``.
"""

import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from attnprobe.bench.problem import Problem
from attnprobe.errors import RunError

LONGEST = 300.0  # seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fresh:
    first_step_seconds: float  # interpreter start and imports included
    peak_megabytes: float  # resident memory on the CPU, allocated memory of the device on a GPU


def measure(name: str, problem: Problem, device: torch.device, precision: str) -> Fresh:
    """Start a process for one peer and let it take two steps."""
    arguments = [name, json.dumps(dataclasses.asdict(problem)), str(device), precision]
    command = [sys.executable, "-m", "attnprobe.bench.fresh", *arguments]
    with tempfile.TemporaryDirectory() as cold:  # what was compiled before must not be found again
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cold, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        start = time.time()
        answer = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, env=environment, check=False)
    if answer.returncode:
        raise RunError(
            f"{name} failed in a process of its own: {answer.stderr.strip().splitlines()[-1:]}",
            hint="run it alone to see the whole message: ATTNPROBE_DEBUG=1 attnprobe bench",
        )
    document = json.loads(answer.stdout.splitlines()[-1])
    return Fresh(first_step_seconds=document["moment"] - start, peak_megabytes=document["megabytes"])


def main() -> None:
    name, problem, device_name, precision = sys.argv[1:]
    from attnprobe.bench.entries import ENTRIES

    device = torch.device(device_name)
    peer = ENTRIES[name](Problem(**json.loads(problem)), device, precision)
    peer.run(2)  # two, since a framework's time is taken between steps
    moment = time.time()
    size = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident()
    print(json.dumps({"moment": moment, "megabytes": size / 1e6}))


def peak_resident() -> int:
    """Bytes of this process alone. Linux hands a new program the ``ru_maxrss`` of the one that started it, so the
    kernel's own record of the present program is read there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
