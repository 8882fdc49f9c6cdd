"""attnprobe theory certify: slope and curvature of both losses along named directions, on a real checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnprobe.cli.checkpoints import SplitName, open_checkpoint
from attnprobe.cli.output import CHECK_FAILED, DataDir, Device, Json, Quiet, Seed, print_table, progress_bar, say
from attnprobe.cli.probe_checks import check_outputs, note_sequences
from attnprobe.cli.probe_options import Csv, Level, OnSplit, Sequences
from attnprobe.cli.tidy import deliver

if TYPE_CHECKING:
    from attnprobe.probes.certificate import CertificateRow


def certify(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint (.pt) of ours.")],
    task: Annotated[
        str | None, typer.Option(help="Measure on the task of this preset or .toml file.", show_default="the run's own")
    ] = None,
    sequences: Sequences = 200,
    split: OnSplit = SplitName.train,
    shuffles: Annotated[int, typer.Option(min=19, max=99_999, help="Draws of the shuffled-label null.")] = 999,
    level: Level = 0.95,
    seed: Seed = 0,
    device: Device = "auto",
    data_dir: DataDir = None,
    csv: Csv = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Is the label loss locally blind along proximity, on this model? Slope and curvature, with intervals.

    Examples:

        attnprobe theory certify runs/textures-s0/checkpoints/init.pt

        attnprobe theory certify runs/textures-s0/checkpoints/finetuned.pt -n 400 --json

    Every derivative is computed twice in float64, by differentiating and by central finite differences. Exit code 5
    if the two disagree anywhere.
    """
    import numpy as np

    from attnprobe import presets, run
    from attnprobe.cli.probe_alignment import reconstruction_of
    from attnprobe.probes.certificate import measure
    from attnprobe.probes.statistics import rows_to_records

    check_outputs([checkpoint], csv=csv)
    other = None if task is None else run.from_table(presets.read_table(task)).task
    opened = open_checkpoint(checkpoint, task=other, split=split, device=device, data_dir=data_dir)
    note_sequences(opened, sequences, quiet=quiet)
    with progress_bar(opened.label, quiet=quiet or json) as report:
        rows = measure(
            opened.model,
            opened.split,
            reconstruction=reconstruction_of(opened),
            n=sequences,
            shuffles=shuffles,
            level=level,
            seed=seed,
            generator=np.random.default_rng(seed),
            progress=report,
        )
    agree = all(row.agrees for row in rows)
    if not (json or quiet):
        show(rows, opened.label)
    fields = ("direction", "loss", "null_low", "null_high", "difference", "agrees")
    records = [opened.origin() | record for record in rows_to_records(rows, str(checkpoint), *fields)]
    extra = {"passed": agree}
    deliver([checkpoint], records, {}, [], csv=csv, npz=None, json=json, quiet=quiet, extra=extra)
    if not agree:
        raise typer.Exit(CHECK_FAILED)


def show(rows: "list[CertificateRow]", label: str) -> None:
    lines = []
    for row in sorted(rows, key=lambda r: (r.layer, r.head, r.direction, r.loss, r.quantity)):
        interval = row.interval
        text = f"{interval.estimate:+.2e} [{interval.low:+.2e}, {interval.high:+.2e}]"
        null = "" if row.null_low is None else f"[{row.null_low:+.2e}, {row.null_high:+.2e}]"
        p_value = "" if row.p_value is None else f"{row.p_value:.3f}"
        agrees = f"{row.difference:.0e}" + ("" if row.agrees else " DISAGREES")
        lines.append(
            [str(row.layer), str(row.head), row.direction, row.loss, row.quantity, text, null, p_value, agrees]
        )
    columns = ["layer", "head", "direction", "loss", "", "estimate", "under shuffled labels", "p", "two ways differ by"]
    print_table(f"local blindness certificate: {label}", columns, lines, numeric_from=5)
    worst = max(row.difference for row in rows)
    say(
        f"{len(rows)} derivatives; derivation and finite differences differ by at most {worst:.0e} of the largest value"
    )
