"""attnprobe probe decompose: what scores are made of, position, content or both."""

from pathlib import Path
from typing import TYPE_CHECKING

from attnprobe.cli.checkpoints import SplitName, labels, open_checkpoint
from attnprobe.cli.output import DataDir, Device, Json, Quiet, Seed, print_table, say
from attnprobe.cli.probe_checks import check_outputs, note_sequences
from attnprobe.cli.probe_options import GIBIBYTE, Checkpoints, Csv, Figure, Level, MemoryLimit, Npz, OnSplit, Sequences
from attnprobe.cli.tidy import Record, deliver

if TYPE_CHECKING:
    from attnprobe.probes.decomposition import Decomposition


def decompose(
    checkpoints: Checkpoints,
    sequences: Sequences = 500,
    split: OnSplit = SplitName.test,
    level: Level = 0.95,
    memory_limit: MemoryLimit = 2.0,
    seed: Seed = 0,
    device: Device = "auto",
    data_dir: DataDir = None,
    csv: Csv = None,
    npz: Npz = None,
    figure: Figure = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Split the scores into position, content and interaction parts, which sum to them exactly; shares of variance.

    Examples:

        attnprobe probe decompose runs/textures-s0/checkpoints/pretrained.pt

        attnprobe probe decompose runs/textures-s0/checkpoints/*.pt --figure parts --csv parts.csv
    """
    import numpy as np

    from attnprobe.probes.decomposition import measure
    from attnprobe.probes.statistics import rows_to_records

    found: dict[str, Decomposition] = {}
    records: list[Record] = []
    check_outputs(checkpoints, csv=csv, npz=npz, figure=figure)
    for path, label in zip(checkpoints, labels(checkpoints), strict=True):
        say(f"decomposing {label}", quiet=quiet or json)
        opened = open_checkpoint(path, label=label, split=split, device=device, data_dir=data_dir)
        note_sequences(opened, sequences, quiet=quiet)
        found[label] = measure(
            opened.model,
            opened.split,
            n=sequences,
            level=level,
            memory_limit=round(memory_limit * GIBIBYTE),
            generator=np.random.default_rng(seed),
        )
        records += [opened.origin() | record for record in rows_to_records(found[label].rows, str(path))]
    if not (json or quiet):
        show(found)
    figures = draw(found, figure) if figure is not None else []
    arrays = {label: result.arrays() for label, result in found.items()} if npz is not None else {}
    deliver(checkpoints, records, arrays, figures, csv=csv, npz=npz, json=json, quiet=quiet)


def draw(found: "dict[str, Decomposition]", stem: Path) -> list[Path]:
    from attnprobe.report.figures import draw_quantities

    return draw_quantities({label: result.rows for label, result in found.items()}, stem)


def show(found: "dict[str, Decomposition]") -> None:
    lines: dict[tuple[str, int | None, int | None], list[str]] = {}
    columns: list[str] = []
    for label, result in found.items():
        for row in result.rows:
            interval = row.interval
            text = f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
            lines.setdefault((label, row.layer, row.head), []).append(text)
            if row.quantity not in columns:
                columns.append(row.quantity)
    cells = [[label, str(layer), str(head), *texts] for (label, layer, head), texts in lines.items()]
    print_table("shares of the variance of the scores", ["checkpoint", "layer", "head", *columns], cells)
