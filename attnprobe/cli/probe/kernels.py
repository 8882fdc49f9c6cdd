"""attnprobe probe kernels: where the long convolutions of state-space models look."""

from typing import Annotated, Any

import typer

from attnprobe.cli.probe.driver import Findings, Request, make_command
from attnprobe.cli.probe.options import Checkpoints
from attnprobe.cli.probe.table import Column, Table, interval
from attnprobe.cli.screen.output import finite
from attnprobe.errors import NotApplicableError

TABLE = Table(
    title="locality of kernels, mean over channels",
    keys=("checkpoint", "layer"),
    columns=(
        Column(heading="mass near, x uniform", where={"quantity": "near_mass"}, text=interval(".2f")),
        Column(heading="distance", where={"quantity": "distance"}, text=interval(".1f")),
        Column(heading="entropy, nats", where={"quantity": "entropy"}, text=interval(".2f")),
    ),
    ranked_by="near_mass",
)


def kernels(
    request: Request,
    checkpoints: Checkpoints,
    radius: Annotated[
        float | None,
        typer.Option(
            min=0,
            callback=finite,
            help="What counts as near: 3 positions, or 1.5 pixels, by default.",
            show_default=False,
        ),
    ] = None,
) -> Findings:
    """Say how local the kernels of state-space models are, in the measures of attention patterns, and draw them.

    Examples:

        attnprobe probe kernels runs/s4/checkpoints/init.pt runs/s4/checkpoints/pretrained.pt --figure kernels

        attnprobe probe kernels runs/s4/checkpoints/finetuned.pt --radius 8 --csv kernels.csv

    Beside the checkpoints stands the structured start of their method, one for each kind of model. Intervals are over
    the channels of a layer. The data set is not needed.
    """
    from attnprobe.capture import convolutions
    from attnprobe.opening import is_foreign, labels, origin
    from attnprobe.probes.kernels import measure
    from attnprobe.probes.rows import rows_to_records
    from attnprobe.report import verdicts
    from attnprobe.report.kernel_figures import START, draw_kernels
    from attnprobe.training.saved.checkpoint import load_checkpoint

    results, records = {}, []

    def add(label: str, path: str, model: Any, origin: dict[str, Any]) -> None:
        results[label] = measure(
            convolutions.kernels(model), convolutions.layout(model), radius=radius, level=request.level,
            seed=request.seed,
        )  # fmt: skip
        records.extend(origin | record for record in rows_to_records(results[label].rows, path))

    foreign = next((path for path in checkpoints if is_foreign(path)), None)
    if foreign is not None:
        hint = "take a checkpoint of ours of a mixer like s4; for attention: attnprobe probe proximity"
        raise NotApplicableError(f"{foreign}: long convolutions are looked up in checkpoints of ours only", hint=hint)
    loaded = [load_checkpoint(path) for path in checkpoints]
    starts = [(convolutions.structured(checkpoint.run.model), checkpoint.spec) for checkpoint in loaded]
    for number, (path, label) in enumerate(zip(checkpoints, labels(checkpoints), strict=True)):
        model = loaded[number].make_model()
        add(label, str(path), model, origin(loaded[number]))
        if starts[number] not in starts[:number]:
            name = START if starts.count(starts[0]) == len(starts) else f"{START} of {label}"
            start = convolutions.at_the_start(model, request.seed)
            add(name, name, start, {"seed": request.seed, "phase": "init", "epoch": 0})
    return Findings(
        records=records,
        table=TABLE,
        verdict=verdicts.kernels,
        results=results,
        draw=lambda name: draw_kernels(results, name),
    )


command = make_command(kernels, without=("sequences", "split", "memory_limit", "device", "data_dir"))
