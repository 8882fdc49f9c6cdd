"""The manifest of a run: where its numbers come from."""

import functools
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch

from attnprobe import __version__, published, run
from attnprobe.machine import now, processor_name
from attnprobe.run import RunConfig
from attnprobe.tasks import Data
from attnprobe.training.updates.attention_kernels import KernelChoice


def make_manifest(
    config: RunConfig, device: torch.device, data: Mapping[str, Data], attention: Mapping[str, KernelChoice]
) -> dict[str, Any]:
    """Who ran what, where, with which versions, on which data and with which attention kernel (both by phase)."""
    return {
        "argv": sys.argv,
        "fingerprint": run.fingerprint(config),
        "seed": config.seed,
        "attnprobe": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "commit": git_commit(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "precision": config.engine.precision,
        "deterministic": config.engine.deterministic,
        "published": published.described(run.to_table(config)),
        "attention": {phase: choice.kernel for phase, choice in attention.items()},
        "attention_deviation": {phase: choice.deviations for phase, choice in attention.items()},
        "threads": torch.get_num_threads(),
        "data_sha256": {phase: found.fingerprint() for phase, found in data.items()},
        "data_notes": {phase: found.notes for phase, found in data.items()},
        "started": now(),
    }


@functools.cache
def git_commit() -> str | None:
    """The commit of the source tree this package is imported from, with "+" if it was changed; None outside git."""
    folder, package = Path(__file__).parent, Path(__file__).parents[2]

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if not commit or git("ls-files", "--error-unmatch", __file__) is None:
        return None
    return commit + ("+" if git("status", "--porcelain", "--untracked-files=no", "--", str(package)) else "")
