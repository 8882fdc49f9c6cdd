"""What `attnprobe train` shows: the plan of a dry run, and the table at the end."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe.cli.screen.output import print_json, print_table, say

if TYPE_CHECKING:
    from attnprobe.run import RunConfig


def show_plan(configs: "list[RunConfig]", folders: list[Path], *, json: bool, quiet: bool, **options: Any) -> None:
    """What would be trained: sizes, steps, memory and time; nothing is written, and no data are drawn for it.

    options: data_dir, device, resume and overwrite of the runs.
    """
    from attnprobe.launch.plan import make_plan

    plan = make_plan(configs, folders, **options)
    if json:
        print_json(plan)
    elif not quiet:
        print_plan(plan)


def print_plan(plan: dict[str, Any]) -> None:
    import tomli_w

    from attnprobe import published

    say(tomli_w.dumps(plan["settings"]))
    for line in published.lines(plan["settings"]):
        say(line)
    folders, phases = plan["run_dirs"], plan["phases"]
    title = f"{plan['parameters']:,} parameters; {len(folders)} run(s) into {folders[0]}"
    sizes = ("train_samples", "length", "steps", "tokens")
    print_table(
        title + (f" .. {folders[-1]}" if len(folders) > 1 else ""),
        ["phase", "training samples", "length", "steps", "tokens"],
        [[name, *(f"{numbers[size]:,}" for size in sizes)] for name, numbers in phases.items()],
    )
    rows = []
    for name, numbers in phases.items():
        memory, step = numbers["memory"], numbers["seconds_per_step"]
        state = memory["parameters"] + memory["gradients"] + memory["optimizer"] + memory["best"]
        parts = [state, memory["activations"], memory["evaluation"], memory["data"], memory["total"]]
        times = ["?", "?"] if step is None else [span(step), span(numbers["seconds"])]
        rows.append([name, *(f"{part / 2**20:,.4g}" for part in parts), *times])
    print_table(
        f"estimates for one run on {plan['device']}: memory in MiB, without what Python and torch take",
        ["phase", "model and optimizer", "training step", "evaluation", "data", "peak", "a step", "all"],
        rows,
    )
    for name, numbers in phases.items():
        if numbers["note"]:
            say(f"{name}: {numbers['note']}")
    if plan["refused"] is not None:
        say(f"warning: without --dry-run this would be refused: {plan['refused']}")


def span(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


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
