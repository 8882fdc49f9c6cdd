"""attnprobe compare: two runs, checkpoints or arms side by side."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnprobe.cli.probe.options import Level, MemoryLimit
from attnprobe.cli.screen.output import (
    DataDir,
    Device,
    Full,
    Json,
    Quiet,
    print_json,
    print_table,
    print_verdict,
    progress_bar,
    say,
)
from attnprobe.opening import Opener, SplitName

if TYPE_CHECKING:
    from attnprobe.comparison.compare import Comparison
    from attnprobe.comparison.differences import Row

GIBIBYTE = 2**30
Sided = "a run's folder, a folder of runs with several seeds, a pattern of these in quotes, or a checkpoint"


def compare(
    a: Annotated[str, typer.Argument(help=f"One side: {Sided}.")],
    b: Annotated[str, typer.Argument(help="The other side; differences are B minus A.")],
    sequences: Annotated[
        int | None, typer.Option("--sequences", "-n", min=2, help="Sequences to pair.", show_default="all")
    ] = None,
    split: Annotated[SplitName, typer.Option(help="Data to evaluate on.")] = SplitName.test,
    no_evaluate: Annotated[
        bool, typer.Option("--no-evaluate", help="Open no data: compare only what the runs recorded.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Also of other tasks, test data or objectives.")] = False,
    level: Level = 0.95,
    memory_limit: MemoryLimit = 2.0,
    device: Device = "auto",
    data_dir: DataDir = None,
    full: Full = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare two runs, checkpoints or arms: what differs, and by how much the one is better, with paired intervals.

    Examples:

        attnprobe compare runs/textures-scratch-s0 runs/textures-s0

        attnprobe compare 'demo/runs/scratch-s*' 'demo/runs/pretrained-s*'

        attnprobe compare runs/qk/checkpoints/init.pt runs/qk/checkpoints/finetuned.pt -n 500

        attnprobe compare runs/five runs/five-scratch --no-evaluate --json

    Checkpoints are evaluated on the same test sequences, and the difference of their accuracies is paired sequence by
    sequence; arms are paired by the seeds that both have, too. Unlike ones are refused.
    """
    from attnprobe.comparison.compare import Evaluation
    from attnprobe.comparison.compare import compare as compare_sides
    from attnprobe.comparison.sides import read_side
    from attnprobe.comparison.verdict import verdict

    def warn(text: str) -> None:
        say(f"warning: {text}", quiet=quiet)

    one, other = (read_side(given, warn=warn) for given in (a, b))
    with progress_bar("evaluating", quiet=quiet or json) as progress:
        evaluation = None
        if not no_evaluate:
            opener = Opener(split=split, device=device, data_dir=data_dir)
            memory = round(memory_limit * GIBIBYTE)
            evaluation = Evaluation(opener=opener, n=sequences, memory_limit=memory, progress=progress)
        found = compare_sides(one, other, evaluation, level=level, force=force)
    text = verdict(found)
    if json:
        print_json(dataclasses.asdict(found) | {"verdict": text})
    elif not quiet:
        show(found, full=full)
        print_verdict(text)


def show(found: "Comparison", *, full: bool) -> None:
    for title, rows in (("settings", found.settings), ("versions and machine", found.versions), ("data", found.data)):
        if rows:
            lines = [[key, shortened(a), shortened(b)] for key, a, b in (rows_of(rows) if full else collapsed(rows))]
            print_table(f"{title} that differ", ["", "A", "B"], lines, numeric_from=3)
        else:
            say(f"no {title} differ")
    lines = []
    for side, name in (("a", found.a), ("b", found.b)):
        means = found.results[side]
        numbers = ("train_accuracy", "validation_accuracy", "test_accuracy", "test_loss")
        name = f"{name} (untrained)" if side.upper() in found.untrained else name
        lines.append([side.upper(), name, str(means["n"]), *(number(means[key]) for key in numbers)])
    columns = ["", "what", "seeds", "train accuracy", "validation accuracy", "test accuracy", "test loss"]
    print_table("what the runs recorded (means)", columns, lines, numeric_from=2)
    if found.rows:
        print_table(
            f"B minus A, paired, with {100 * found.rows[0]['level']:g} % intervals",
            ["", "over", "n", "seed", "A", "B", "difference", "interval", "only A right", "only B right"],
            [line(row) for row in found.rows],
            numeric_from=2,
        )
    for note in found.notes:
        say(f"note: {note}")


def line(row: dict[str, Any]) -> list[str]:
    low, high = row["low"], row["high"]
    interval = "" if low != low else f"[{low:+.3f}, {high:+.3f}]"
    counts = [str(row.get(key, "")) for key in ("only_a_right", "only_b_right")]
    seed = "" if row["seed"] is None else str(row["seed"])
    numbers = [number(row["a"]), number(row["b"]), f"{row['estimate']:+.3f}", interval]
    return [row["quantity"].replace("_", " "), row["over"], str(row["n"]), seed, *numbers, *counts]


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def rows_of(rows: "list[Row]") -> list[list[str]]:
    """What each side has of a setting: one value, or those of its seeds."""
    return [
        [row["key"], *(", ".join("-" if v is None else str(v) for v in row[side]) for side in "ab")] for row in rows
    ]


def collapsed(rows: "list[Row]") -> list[list[str]]:
    """A section that one side lacks altogether becomes one line."""
    lines: dict[str, list[str]] = {}
    for line in rows_of(rows):
        section = line[0].partition(".")[0] + "."
        same = [row for row in rows if row["key"].startswith(section)]
        lacking = [side for side in "ab" if all(row[side] == [None] for row in same)]
        if lacking and len(same) > 2:
            there = f"{len(same)} settings (--full)"
            lines[section] = [f"{section}*", *("-" if side in lacking else there for side in "ab")]
        else:
            lines[line[0]] = line
    return list(lines.values())


def shortened(text: str) -> str:
    """Without the rest of a checksum."""
    return ", ".join(part[:12] if len(part) == 64 else part for part in text.split(", "))
