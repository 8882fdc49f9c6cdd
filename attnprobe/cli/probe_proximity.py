"""attnprobe probe proximity: how strongly pre-softmax scores prefer near keys."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnprobe.cli.checkpoints import Opened, SplitName, labels, open_checkpoint
from attnprobe.cli.output import DataDir, Device, Json, Quiet, Seed, print_table, progress_bar
from attnprobe.cli.probe_checks import check_outputs, note_sequences
from attnprobe.cli.probe_options import (
    GIBIBYTE,
    Checkpoints,
    Csv,
    Figure,
    Level,
    MemoryLimit,
    Npz,
    OnSplit,
    Sequences,
    finite,
)
from attnprobe.cli.tidy import Record, deliver
from attnprobe.outputs import further_figure

if TYPE_CHECKING:
    from attnprobe.probes.proximity import Proximity
    from attnprobe.probes.statistics import Measurement


def proximity(
    checkpoints: Checkpoints,
    radius: Annotated[
        float | None,
        typer.Option(
            min=0.0, callback=finite, help="Near means up to here; pixels or positions.", show_default="1.5 or 3"
        ),
    ] = None,
    sequences: Sequences = 500,
    split: OnSplit = SplitName.test,
    without_self: Annotated[bool, typer.Option("--without-self", help="Leave each position's own key out.")] = False,
    permutations: Annotated[
        int, typer.Option(min=19, max=99_999, help="Draws of the null that permutes key positions.")
    ] = 999,
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
    """How strongly do pre-softmax QK scores prefer near keys, per layer and head?

    Examples:

        attnprobe probe proximity runs/textures-s0/checkpoints/finetuned.pt

        attnprobe probe proximity runs/textures-s0/checkpoints/*.pt --figure proximity

        attnprobe probe proximity ckpt.pt --radius 2 --csv rows.csv --json

    proximity_bias is the mean row-centred score of near pairs minus that of the others, in standard deviations of the
    scores, with a bootstrap interval over sequences and a p-value against permuted key positions. Checkpoints that
    differ in nothing but the seed are also summed up together: intervals are then over seeds.
    """
    from attnprobe.probes.statistics import rows_to_records

    found: dict[str, Proximity] = {}
    records: list[Record] = []
    settings: dict[str, list[str]] = {}  # labels of checkpoints that differ in nothing but the seed
    check_outputs(checkpoints, csv=csv, npz=npz, figure=figure, further=["maps"])
    for path, label in zip(checkpoints, labels(checkpoints), strict=True):
        opened = open_checkpoint(path, label=label, split=split, device=device, data_dir=data_dir)
        note_sequences(opened, sequences, quiet=quiet)
        found[label] = measure_proximity(
            opened,
            radius=radius,
            sequences=sequences,
            include_self=not without_self,
            permutations=permutations,
            level=level,
            memory_limit=memory_limit,
            seed=seed,
            quiet=quiet or json,
        )
        records += [opened.origin() | record for record in rows_to_records(found[label].rows, str(path))]
        settings.setdefault(opened.setting(), []).append(label)
    pooled = pool_seeds(found, settings, level, seed)
    records += [record for label, rows in pooled.items() for record in rows_to_records(rows, label)]
    if not (json or quiet):
        show({label: result.rows for label, result in found.items()})
        if pooled:
            show(pooled)
    figures = draw(found, figure) if figure is not None else []
    arrays = {label: result.arrays() for label, result in found.items()} if npz is not None else {}
    deliver(checkpoints, records, arrays, figures, csv=csv, npz=npz, json=json, quiet=quiet)


def measure_proximity(
    opened: Opened,
    *,
    radius: float | None = None,
    sequences: int = 500,
    include_self: bool = True,
    permutations: int = 999,
    level: float = 0.95,
    memory_limit: float = 2.0,
    seed: int = 0,
    quiet: bool = True,
) -> "Proximity":
    import numpy as np

    from attnprobe.probes.proximity import measure

    with progress_bar(opened.label, quiet=quiet) as report:
        return measure(
            opened.model,
            opened.split,
            radius=radius,
            n=sequences,
            level=level,
            permutations=permutations,
            include_self=include_self,
            memory_limit=round(memory_limit * GIBIBYTE),
            generator=np.random.default_rng(seed),
            progress=report,
        )


def pool_seeds(
    found: "dict[str, Proximity]", settings: dict[str, list[str]], level: float, seed: int
) -> "dict[str, list[Measurement]]":
    """Rows over all seeds of every setting that was given with several of them."""
    import numpy as np

    from attnprobe.probes.proximity import pool

    pooled = {}
    for setting, members in settings.items():
        if len(members) > 1:
            results = [found[label] for label in members]
            label = f"{setting}, {len(members)} seeds"
            pooled[label] = pool(results, level=level, generator=np.random.default_rng(seed))
    return pooled


def draw(found: "dict[str, Proximity]", stem: Path) -> list[Path]:
    from attnprobe.report.figures import draw_offset_profiles, draw_proximity_maps

    figures = draw_offset_profiles(found, stem)
    if all(result.map is not None for result in found.values()):
        figures += draw_proximity_maps(found, further_figure(stem, "maps"))
    return figures


def show(found: "dict[str, list[Measurement]]") -> None:
    """One line per checkpoint, layer and head; every quantity with its interval. Rows over heads have no head."""
    columns: dict[str, str] = {}  # quantity -> heading
    lines: dict[tuple[str, int | None, int | None], dict[str, str]] = {}
    for label, rows in found.items():
        for row in rows:
            line = lines.setdefault((label, row.layer, row.head), {})
            interval = row.interval
            line[row.quantity] = f"{interval.estimate:.3g} [{interval.low:.3g}, {interval.high:.3g}]"
            columns[row.quantity] = f"{row.quantity}\n({interval.unit})"
            if row.p_value is not None:
                line[f"{row.quantity} p"], columns[f"{row.quantity} p"] = f"{row.p_value:.3g}", "p"
    cells = [
        [label, str(layer), "all" if head is None else str(head), *(line.get(key, "") for key in columns)]
        for (label, layer, head), line in lines.items()
    ]
    print_table("proximity of pre-softmax scores", ["checkpoint", "layer", "head", *columns.values()], cells)
