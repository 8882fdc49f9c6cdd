"""What `attnprobe train` shows: the plan of a dry run, and the table at the end."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from attnprobe.run import RunConfig
    from attnprobe.tasks import Data, Task


def show_plan(configs: "list[RunConfig]", folders: list[Path], data_dir: Path | None, json: bool) -> None:
    """What would be trained: sizes and steps, computed from the real data and model, nothing written."""
    import tomli_w

    from attnprobe import published, run
    from attnprobe.models.initialisation import parameter_count
    from attnprobe.training.checkpoint import check_run, starting_point

    config = configs[0]
    datasets: dict[Task, Data] = {}

    def load(task: "Task") -> "Data":
        if task not in datasets:
            datasets[task] = task.load(data_dir)
        return datasets[task]

    model = check_run(config, starting_point(config), load)
    phases = {}
    for name, phase in config.phases().items():
        data = load(config.task_of(phase))
        batch = min(phase.batch_size, len(data.train))
        steps = len(data.train) // batch * phase.epochs
        tokens = steps * batch * data.spec.length * (2 if data.spec.pairs else 1)
        phases[name] = {"train_samples": len(data.train), "length": data.spec.length, "steps": steps, "tokens": tokens}
    plan = {
        "run_dirs": [str(folder) for folder in folders],
        "parameters": parameter_count(model),
        "phases": phases,
        "settings": run.to_table(config),
        "published": published.described(run.to_table(config)),
    }
    if json:
        print_json(plan)
        return
    say(tomli_w.dumps(plan["settings"]))
    for line in published.lines(plan["settings"]):
        say(line)
    rows = [[name, *(f"{value:,}" for value in numbers.values())] for name, numbers in phases.items()]
    print_table(
        f"{plan['parameters']:,} parameters; {len(folders)} run(s) into {folders[0]}"
        + (f" .. {folders[-1]}" if len(folders) > 1 else ""),
        ["phase", "training samples", "length", "steps", "tokens"],
        rows,
    )


def show_results(results: list[dict[str, Any]]) -> None:
    names = ("train", "validation", "test")
    measure = "accuracy" if results[0]["test_accuracy"] is not None else "loss"
    rows = []
    for result in results:
        numbers = [f"{result[f'{name}_{measure}']:.3f}" for name in names]
        rows.append([result["run_dir"], str(result["seed"]), *numbers, f"{result['seconds']:.0f}"])
    columns = ["run", "seed", *(f"{name} {measure}" for name in names), "seconds"]
    print_table(f"{results[0]['phase']} ({results[0]['objective']})", columns, rows)
    last = results[0]["phase"]
    checkpoints = [result["checkpoints"][last] for result in results]
    if len(results) == 1:
        checkpoints = list(results[0]["checkpoints"].values())
    say("checkpoints: " + ", ".join(checkpoints))
    say("next: attnprobe probe proximity " + " ".join(checkpoints))
