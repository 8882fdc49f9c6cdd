"""attnprobe reproduce: a run again, by its own records."""

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnprobe.cli.screen.output import (
    CHECK_FAILED,
    DataDir,
    Device,
    Json,
    Quiet,
    finite,
    print_json,
    print_table,
    print_verdict,
    say,
)

if TYPE_CHECKING:
    from attnprobe.comparison.reproduce import Reproduction
    from attnprobe.run import RunConfig


def reproduce(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    out: Annotated[Path | None, typer.Option(help="Keep the new run there.", show_default="a temporary folder")] = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0, callback=finite, help="Of accuracies, and of losses as a share of themselves."),
    ] = 1e-3,
    device: Device = "auto",
    data_dir: DataDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Carry out a finished run again, by its settings, data, threads and kernels, and say whether it is the same.

    Examples:

        attnprobe reproduce runs/textures-s0

        attnprobe reproduce runs/textures-s0 --out runs/again --json

    Versions and weights that differ are shown. Exit code 5 if results differ by more than --tolerance. Runs whose data
    are gone or others are refused.
    """
    from attnprobe.comparison.reproduce import reproduce as carry_out_again
    from attnprobe.comparison.reproduce import verdict
    from attnprobe.training.loop import Interrupted

    def carry_out(config: "RunConfig", folder: Path, **fields: Any) -> None:
        from attnprobe.cli.screen.progress import TrainingProgress
        from attnprobe.launch.runs import run_alone
        from attnprobe.launch.signals import stop_on_signal

        with stop_on_signal(second_ends=True) as stop:
            run_alone((config, folder, None), stop.is_set, make_monitor=TrainingProgress, quiet=quiet or json, **fields)

    with tempfile.TemporaryDirectory(prefix="attnprobe-again") as scratch:
        options = {"device": device, "data_dir": data_dir, "tolerance": tolerance}
        try:
            found = carry_out_again(folder, carry_out, out or Path(scratch) / "run", **options)
        except Interrupted:
            say("interrupted; a reproduction that was interrupted starts again")
            raise typer.Exit(130) from None
    text = verdict(found)
    if json:
        print_json(dataclasses.asdict(found) | {"verdict": text})
    elif not quiet:
        show(found)
        print_verdict(text)
    if not found.passed:
        raise typer.Exit(CHECK_FAILED)


def show(found: "Reproduction") -> None:
    for title, rows in (("settings", found.settings), ("versions and machine", found.versions), ("data", found.data)):
        if rows:
            lines = [[row["key"], *(", ".join(map(str, row[side])) for side in "ab")] for row in rows]
            print_table(f"{title} that differ", ["", "recorded", "now"], lines, numeric_from=3)
    lines = [[row["name"], "yes" if row["equal"] else "no", f"{row['largest']:.2g}"] for row in found.weights]
    print_table("weights", ["checkpoint", "equal bit for bit", "largest difference"], lines)
    lines = [
        [row["quantity"].replace("_", " "), f"{row['a']:.6g}", "-" if row["b"] is None else f"{row['b']:.6g}",
         f"{row['difference']:.2g}"]
        for row in found.results
    ]  # fmt: skip
    print_table("results", ["", "recorded", "now", "difference"], lines)
