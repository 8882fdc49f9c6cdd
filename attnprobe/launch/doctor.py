"""Is this installation in order? What a person who reports a problem is asked for, and short trials of the engine and
of a probe against answers that are known.
"""

import dataclasses
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from attnprobe import __version__, run
from attnprobe.capture.arrays import arrays
from attnprobe.errors import AttnprobeError
from attnprobe.launch.arms import settings_of
from attnprobe.machine import choose_device, cores, free_memory, installed_version, processor_name
from attnprobe.probes.proximity.probe import measure
from attnprobe.tasks.sources.cache import cache_dir
from attnprobe.tasks.sources.catalogue import SOURCES
from attnprobe.tasks.sources.copies import status
from attnprobe.training.execute import execute
from attnprobe.training.loop import Interrupted
from attnprobe.training.monitor import Silent
from attnprobe.training.saved.checkpoint import load_checkpoint

PACKAGES = ("torch", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "typer", "rich")
OPTIONAL = ("transformers", "tokenizers", "safetensors", "pyarrow", "xarray")
LITTLE_MEMORY, LITTLE_DISK = 2**30, 2**30  # bytes below which a warning is due
TINY = (  # the smallest textures run that has both phases; a second on one core
    "task.n_train=60", "task.n_validation=20", "task.n_test=20", "model.d_model=16", "model.d_mlp=16", "model.heads=2",
    "pretrain.epochs=2", "pretrain.batch_size=20", "finetune.epochs=2", "finetune.batch_size=20",
)  # fmt: skip
EXACT = 1e-9  # of numbers that are computed in float64 on both sides


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What was looked at and found."""

    what: str
    state: Literal["ok", "warning", "failed"] = "ok"
    found: str
    hint: str = ""  # what to do about it


def versions(device: str) -> Finding:
    """Of ourselves, Python and what we stand on; those of the extras that are there."""
    known = {name: installed_version(name) for name in (*PACKAGES, *OPTIONAL)}
    there = [f"{name} {version}" for name, version in known.items() if version]
    missing = [name for name in PACKAGES if known[name] is None]
    text = f"attnprobe {__version__}, Python {platform.python_version()}, {', '.join(there)}; {platform.platform()}"
    if missing:
        return Finding(what="versions", state="failed", found=f"missing: {', '.join(missing)}", hint="pip install them")
    return Finding(what="versions", found=text)


def device(name: str) -> Finding:
    """Where a run would be carried out, and the memory that is free there."""
    chosen = choose_device(name)
    title = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else processor_name()
    free = free_memory(chosen)
    text = f"{chosen} ({title}), memory free: {'not known' if free is None else f'{free / 2**30:.1f} GiB'}"
    if free is not None and free < LITTLE_MEMORY:
        return Finding(what="device", state="warning", found=text, hint="stop other programs, or choose small sizes")
    return Finding(what="device", found=text)


def threads(device: str) -> Finding:
    text = f"{torch.get_num_threads()} of torch on {cores()} cores"
    if os.environ.get("OMP_NUM_THREADS"):
        text += f" (OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']})"
    if torch.get_num_threads() > cores():
        hint = f"they wait for each other: set OMP_NUM_THREADS={cores()}"
        return Finding(what="threads", state="warning", found=text, hint=hint)
    return Finding(what="threads", found=text)


def folders(device: str) -> Finding:
    """Whether the working folder and the cache can be written, and the room there."""
    bad, room = [], []
    for what, folder in (("working folder", Path.cwd()), ("cache", cache_dir())):
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                free = shutil.disk_usage(existing).free
        except OSError as error:
            bad.append(f"{what} {folder} cannot be written: {error.strerror or error}")
            continue
        room.append((free, f"{what} {folder}, {free / 2**30:.1f} GiB free"))
    text = "; ".join([*bad, *(said for _, said in room)])
    if bad:
        return Finding(what="folders", state="failed", found=text, hint="choose others: --out, ATTNPROBE_DATA")
    little = any(free < LITTLE_DISK for free, _ in room)
    hint = "runs and data need room" if little else ""
    return Finding(what="folders", state="warning" if little else "ok", found=text, hint=hint)


def data(device: str) -> Finding:
    """Which data sets are here. Generated ones always are."""
    here = [name for name in SOURCES if status(name) == "ready"]
    text = f"{', '.join(here) or 'none'} of {len(SOURCES)} sources that are downloaded; textures is always there"
    return Finding(what="data", found=text, hint="" if here else "attnprobe data list")


def engine(device: str) -> Finding:
    """A tiny run of both phases: it learns something, and interrupted and continued it ends with the same bits."""
    config = run.from_table(settings_of(run.DEFAULT_PRESET, TINY))
    chosen = choose_device(device)
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder) / "whole", Path(folder) / "parts"
        options = {"device": chosen, "monitor": Silent()}
        result = execute(config, whole, **options)
        try:
            execute(config, parts, should_stop=_after(3), **options)
            return Finding(what="engine", state="failed", found="a run that was asked to stop did not", hint=REPORT)
        except Interrupted:
            execute(config, parts, resume=True, **options)
        found, again = (load_checkpoint(Path(place) / "checkpoints" / "finetuned.pt") for place in (whole, parts))
        loss = float(result["test_loss"])
    largest = max(float((found.state[name] - again.state[name]).abs().max()) for name in found.state)
    exact = largest == 0 or chosen.type == "cuda"  # where kernels add up in any order
    text = f"trained twice, once interrupted and continued: weights differ by {largest:g}; loss {loss:.3f}"
    if not (exact and largest < 1e-3 and math.isfinite(loss)):
        return Finding(what="engine", state="failed", found=text, hint=REPORT)
    return Finding(what="engine", found=text)


def probe(device: str) -> Finding:
    """Proximity of random queries and keys against the formula, written out in numpy."""
    random = np.random.default_rng(0)
    q, k = random.standard_normal((2, 5, 3, 11, 7))  # (sequences, heads, positions, d_head)
    answer = measure(arrays(q, k), n=len(q))
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    centred = scores - scores.mean(-1, keepdims=True)
    by_offset = [np.diagonal(centred, o, -2, -1).mean((0, 2)) for o in answer.profile.axes["offset"]]
    profile_error = np.abs(answer.profile.score.estimate[0] - np.stack(by_offset, -1)).max()
    sd_error = np.abs(answer.sd[0] - centred.std((0, 2, 3))).max()
    largest = float(max(profile_error, sd_error))
    state = "ok" if largest < EXACT else "failed"
    text = f"proximity against its formula: largest error {largest:.0e}"
    return Finding(what="probe", state=state, found=text, hint="" if state == "ok" else REPORT)


REPORT = "please report it with the output of attnprobe doctor --json"
CHECKS: Mapping[str, Callable[[str], Finding]] = {
    check.__name__: check for check in (versions, device, threads, folders, data, engine, probe)
}


def look(name: str, device: str) -> Finding:
    """One of CHECKS; what goes wrong in it is its finding."""
    try:
        return CHECKS[name](device)
    except AttnprobeError as error:
        return Finding(what=name, state="failed", found=str(error), hint=error.hint)
    except Exception as error:  # whatever it is, a person who asks what is wrong wants to see the rest, too
        return Finding(what=name, state="failed", found=f"{type(error).__name__}: {error}", hint=REPORT)


def _after(steps: int) -> Callable[[], bool]:
    """Says yes when it has been asked so many times."""
    left = iter(range(steps))
    return lambda: next(left, None) is None
