"""attnprobe probe alignment: label against reconstruction gradients along attention-score directions."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnprobe.cli.checkpoints import Opened, SplitName, labels, open_checkpoint
from attnprobe.cli.output import DataDir, Device, Json, Quiet, Seed, print_table, progress_bar
from attnprobe.cli.probe_checks import check_outputs, note_sequences
from attnprobe.cli.probe_options import GIBIBYTE, Checkpoints, Csv, Figure, Level, MemoryLimit, Npz, OnSplit, Sequences
from attnprobe.cli.tidy import Record, deliver
from attnprobe.outputs import further_figure

if TYPE_CHECKING:
    from attnprobe.objectives import CausalPrediction, MaskedReconstruction
    from attnprobe.probes.alignment import Alignment


def alignment(
    checkpoints: Checkpoints,
    change_to: Annotated[
        Path | None,
        typer.Option(help="Also project on the change of scores towards this checkpoint.", show_default=False),
    ] = None,
    sequences: Sequences = 500,
    split: OnSplit = SplitName.train,
    shuffles: Annotated[
        int, typer.Option(min=19, max=99_999, help="Draws of the nulls: shuffled labels, shuffled profiles.")
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
    """Do labels pull the attention scores where reconstruction pulls them, and can labels be heard there at all?

    Examples:

        attnprobe probe alignment runs/textures-s0/checkpoints/init.pt

        attnprobe probe alignment init.pt --change-to pretrained.pt --figure alignment

        attnprobe probe alignment runs/textures-s0/checkpoints/*.pt --csv alignment.csv

    Per layer, head and named direction: the mean projection of each loss's gradient with its interval, t, the label
    gradient's null under shuffled labels, how many sequences it takes to detect the direction, and the p-value of the
    reconstruction gradient's rank among shuffles of the direction's profile (--shuffles of them).
    """
    found: dict[str, Alignment] = {}
    records: list[Record] = []
    inputs = checkpoints if change_to is None else [*checkpoints, change_to]
    further = ["offsets", "cosines", *labels(checkpoints)[1:]]
    check_outputs(inputs, csv=csv, npz=npz, figure=figure, further=further)
    for path, label in zip(checkpoints, labels(checkpoints), strict=True):
        opened = open_checkpoint(path, label=label, split=split, device=device, data_dir=data_dir)
        note_sequences(opened, sequences, quiet=quiet)
        with progress_bar(label, quiet=quiet or json) as report:
            found[label] = measure_alignment(
                opened, change_to, sequences, shuffles, level, round(memory_limit * GIBIBYTE), seed, report
            )
        records += [opened.origin() | record for record in found[label].records(str(path))]
    if not (json or quiet):
        show(found)
    figures = draw(found, figure) if figure is not None else []
    arrays = {label: result.arrays() for label, result in found.items()} if npz is not None else {}
    deliver(checkpoints, records, arrays, figures, csv=csv, npz=npz, json=json, quiet=quiet)


def measure_alignment(
    opened: Opened,
    change_to: Path | None,
    sequences: int,
    shuffles: int,
    level: float,
    memory_limit: int,
    seed: int,
    progress: Callable[[int, int], None],
) -> "Alignment":
    import numpy as np

    from attnprobe.objectives import Classification
    from attnprobe.probes.alignment import measure
    from attnprobe.probes.alignment_change import change_of_scores
    from attnprobe.probes.directions import ScoreSpace, named_directions
    from attnprobe.training.checkpoint import load_checkpoint

    generator = np.random.default_rng(seed)
    directions = named_directions(ScoreSpace.of(opened.model), generator=generator)
    if change_to is not None:
        goal = load_checkpoint(change_to).make_model().to(next(opened.model.parameters()).device)
        directions.append(
            change_of_scores(opened.model, goal, opened.split, n=sequences, memory_limit=memory_limit, seed=seed)
        )
    return measure(
        opened.model,
        opened.split,
        label=Classification(),
        reconstruction=reconstruction_of(opened),
        n=sequences,
        directions=directions,
        shuffles=shuffles,
        level=level,
        memory_limit=memory_limit,
        seed=seed,
        generator=generator,
        progress=progress,
    )


def reconstruction_of(opened: Opened) -> "MaskedReconstruction | CausalPrediction":
    from attnprobe.objectives import reconstruction_objective

    return reconstruction_objective(opened.model, opened.checkpoint.objectives())


def show(found: "dict[str, Alignment]") -> None:
    """Directions that mean something, one line per head; single offsets and the rest are in --csv and --json."""
    for label, result in found.items():
        cells: dict[tuple[int | None, int | None, str], dict[str, str]] = {}
        for row in result.rows:
            if row.direction is None or row.direction.startswith("offset"):
                continue
            interval = row.interval
            line = cells.setdefault((row.layer, row.head, row.direction), {})
            if row.quantity == "label.t.null":
                line[row.quantity] = f"[{interval.low:.1f}, {interval.high:.1f}]"
            elif row.quantity.endswith(".sequences"):
                line[row.quantity] = count_of(interval.estimate)
            else:
                line[row.quantity] = f"{interval.estimate:+.1f}"
            if row.p_value is not None:
                line[f"{row.quantity} p"] = f"{row.p_value:.3f}"
        keys = ("label.t", "label.t.null", "label.dependent.mean p", "label.dependent.sequences")
        keys += (
            "reconstruction.t",
            "reconstruction.mean p",
            "reconstruction.specificity p",
            "reconstruction.sequences",
        )
        headings = ["label t", "shuffled labels t", "labels' part p", "sequences to detect"]
        headings += ["reconstruction t", "p", "p among shuffles", "sequences to detect"]
        lines = [
            [str(layer), str(head), direction, *(line.get(key, "") for key in keys)]
            for (layer, head, direction), line in sorted(cells.items(), key=str)
        ]
        columns = ["layer", "head", "direction", *headings]
        print_table(f"gradients along score directions: {label}", columns, lines, numeric_from=3)


def count_of(sequences: float) -> str:
    """A sample size rounded up; beyond a million it only says that nothing is to be seen."""
    return f"{math.ceil(sequences):,}" if sequences < 1e6 else "> 1,000,000"


def draw(found: "dict[str, Alignment]", stem: Path) -> list[Path]:
    from attnprobe.report.alignment_figures import draw_alignment

    names = [stem, *(further_figure(stem, label) for label in list(found)[1:])]
    return [path for name, result in zip(names, found.values(), strict=True) for path in draw_alignment(result, name)]
