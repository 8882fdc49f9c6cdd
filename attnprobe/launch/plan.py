"""What a run would take, before anything starts."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attnprobe import published, run
from attnprobe.errors import AttnprobeError
from attnprobe.machine import choose_device
from attnprobe.models.initialisation import parameter_count
from attnprobe.run import RunConfig
from attnprobe.tasks import Data, Outline, Task
from attnprobe.training.estimate import count_memory, measure_duration
from attnprobe.training.saved.claim import check_claim
from attnprobe.training.saved.run_directory import RunDirectory
from attnprobe.training.score_profile import check_score_profile
from attnprobe.training.starting import check_run, starting_point
from attnprobe.training.walk import sizes_of


def looking(data_dir: Path | None) -> Callable[[Task], Data | Outline]:
    """Asks for what is to be known of a task's data, and loads them only where that is the only way; once for each."""
    known: dict[Task, Data | Outline] = {}

    def look(task: Task) -> Data | Outline:
        if task not in known:
            known[task] = task.outline() or task.load(data_dir)
        return known[task]

    return look


def make_plan(
    configs: Sequence[RunConfig], folders: Sequence[Path], *, data_dir: Path | None, device: str, **claim: bool
) -> dict[str, Any]:
    """Sizes, steps, memory and time of one of the runs, phase by phase, as ``attnprobe train --dry-run --json`` has
    them; ``refused`` says why they could not go into their folders. claim: resume and overwrite.
    """
    config = configs[0]
    chosen = choose_device(device)
    look = looking(data_dir)
    start = starting_point(config)
    model = check_run(config, start, look)
    check_score_profile(config, (look(config.task_of(phase)).spec for phase in config.phases().values()))
    phases = {}
    for name, phase in config.phases().items():
        data = look(config.task_of(phase))
        samples = sizes_of(data)["train"]
        batch = min(phase.batch_size, samples)
        steps = samples // batch * phase.epochs
        tokens = steps * batch * data.spec.length * (2 if data.spec.pairs else 1)
        target = run.reconstruction_target(config, data.spec, start[1])
        memory = count_memory(config, phase, data, target)
        duration = measure_duration(config, phase, data, target, memory, chosen)
        phases[name] = {
            "train_samples": samples, "length": data.spec.length, "steps": steps, "tokens": tokens,
            "memory": dataclasses.asdict(memory) | {"total": memory.total}, **dataclasses.asdict(duration),
        }  # fmt: skip
    seconds = [numbers["seconds"] for numbers in phases.values()]
    return {
        "run_dirs": [str(folder) for folder in folders],
        "refused": refusal(configs, folders, **claim),
        "parameters": parameter_count(model),
        "phases": phases,
        "memory": max(numbers["memory"]["total"] for numbers in phases.values()),
        "seconds": None if None in seconds else sum(seconds),
        "device": str(chosen),
        "settings": run.to_table(config),
        "published": published.described(run.to_table(config)),
    }


def refusal(configs: Sequence[RunConfig], folders: Sequence[Path], *, resume: bool, overwrite: bool) -> str | None:
    """What a start of the runs would say of the first folder that it may not use, with the hint; None if it may."""
    for config, folder in zip(configs, folders, strict=True):
        try:
            check_claim(RunDirectory(folder), config, resume=resume, overwrite=overwrite)
        except AttnprobeError as error:
            return f"{error} ({error.hint})"
    return None
