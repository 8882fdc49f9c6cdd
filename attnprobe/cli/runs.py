"""attnprobe runs: which runs lie in a folder, how far they came and what they reached."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attnprobe.cli.screen.output import Json, print_json, print_table, say

if TYPE_CHECKING:
    from attnprobe.training.saved.listing import ListedRun

Order = Literal["folder", "started", "test_accuracy", "state"]


def runs(
    folder: Annotated[Path, typer.Argument(help="Where to look, with all folders below.")] = Path("runs"),
    sort: Annotated[
        Order, typer.Option(help="By folder, by what was started or is the best last, or by state.")
    ] = "folder",
    json: Json = False,
) -> None:
    """List the runs below a folder: what they are, when and with which seed, what they reached, how far they came.

    Examples:

        attnprobe runs

        attnprobe runs demo --sort test_accuracy

        attnprobe runs --json | jq -r '.runs[] | select(.state == "interrupted") | .folder'

    A run is finished, interrupted (--resume continues it), running (another process writes to it), or damaged: then
    the reason stands below the table.
    """
    import dataclasses

    from attnprobe.training.saved.listing import list_runs

    found = list_runs(folder, warn=lambda text: say(f"warning: {text}"))
    if sort != "folder":
        found.sort(key=lambda run: (getattr(run, sort) is not None, getattr(run, sort)))
    if json:
        print_json({"runs": [dataclasses.asdict(run) for run in found]})
    elif found:
        show(found, folder)
    else:
        say(f"there is no run in {folder} or below")


def show(found: "list[ListedRun]", folder: Path) -> None:
    regression = any(run.test_loss is not None and run.test_accuracy is None for run in found)
    rows = []
    for run in found:
        numbers = [run.train_accuracy, run.validation_accuracy, run.test_accuracy]
        numbers += [run.test_loss] if regression else []
        known = ["" if number is None else f"{number:.3f}" for number in numbers]
        what = [run.task or "?", run.model or "?", run.arm or "?", "?" if run.seed is None else str(run.seed)]
        when = (run.started or "?")[:16].replace("T", " ")
        rows.append([name_in(run.folder, folder), *what, run.state, when, *known])
    numbers = ["train", "validation", "test", *(["test loss"] if regression else [])]
    states = [run.state for run in found]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    columns = ["run", "task", "model", "arm", "seed", "state", "started", *numbers]
    print_table(f"runs in {folder}: {counted}", columns, rows, numeric_from=7)
    for run in found:
        if run.note:
            say(f"damaged: {run.note}")


def name_in(path: str, folder: Path) -> str:
    """The run's folder as seen from the one that was asked for."""
    return str(Path(path).relative_to(folder))
