"""What a run's model is made of, and what a batch of each phase costs, before anything is trained."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from attnprobe import run
from attnprobe.launch.plan import looking
from attnprobe.machine import choose_device
from attnprobe.models.anatomy import parts
from attnprobe.models.initialisation import parameter_count, undrawn
from attnprobe.run import RunConfig
from attnprobe.training import operations
from attnprobe.training.estimate import count_memory, measure_duration
from attnprobe.training.starting import starting_point
from attnprobe.training.walk import sizes_of


def summarise(config: RunConfig, *, data_dir: Path | None, device: str, measure: bool) -> dict[str, Any]:
    """As ``attnprobe model summary --json`` has it. Memory and time are those of ``train --dry-run``.

    measure: time a few steps, for seconds; what is too large for the device says so in its ``note``.
    """
    chosen, look = choose_device(device), looking(data_dir)
    _, pretrain = starting_point(config)
    spec = look(config.task).spec
    with torch.device("meta"):
        model = undrawn(config.model, spec, run.reconstruction_target(config, spec, pretrain))
    phases = {}
    for name, phase in config.phases().items():
        data = look(config.task_of(phase))
        target = run.reconstruction_target(config, data.spec, pretrain)
        batch = min(phase.batch_size, sizes_of(data)["train"])
        memory = count_memory(config, phase, data, target)
        duration = measure_duration(config, phase, data, target, memory, chosen) if measure else None
        phases[name] = {
            "batch_size": batch,
            "length": data.spec.length,
            "operations_per_token": operations.of_token(config, phase, data, target, batch),
            "activations": memory.activations,
            "memory": memory.total,
            "seconds_per_step": None if duration is None else duration.seconds_per_step,
            "note": "" if duration is None else duration.note,
        }
    return {
        "parameters": parameter_count(model),
        "parts": [dataclasses.asdict(part) | {"parameters": part.parameters} for part in parts(model)],
        "phases": phases,
        "device": str(chosen),
        "settings": run.to_table(config)["model"],
    }
