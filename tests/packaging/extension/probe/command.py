"""attnprobe probe sharpness: how much attention a query's favourite key receives."""

from attnprobe.cli.probe.driver import Findings, Request, make_command
from attnprobe.cli.probe.options import Checkpoints
from attnprobe.cli.probe.table import Column, Table, interval

TABLE = Table(
    title="largest weights",
    keys=("checkpoint", "layer", "head"),
    columns=(Column(heading="largest weight", where={"quantity": "sharpness"}, text=interval(".3f")),),
    ranked_by="sharpness",
)


def sharpness(request: Request, checkpoints: Checkpoints) -> Findings:
    """Say how much attention a query's favourite key receives."""
    from attnprobe.probes.sharpness import measure
    from attnprobe.report import verdicts
    from attnprobe.report.figures import draw_quantities

    found = request.measure_each(
        checkpoints,
        lambda opened, report: measure(
            opened.subject(seed=request.seed),
            level=request.level,
            seed=request.seed,
            progress=report,
            **request.sampling(),
        ),
    )
    return Findings(
        records=found.records(),
        table=TABLE,
        verdict=verdicts.sharpness,
        results=found.results,
        draw=lambda name: draw_quantities({label: result.rows for label, result in found.results.items()}, name),
    )


command = make_command(sharpness)
