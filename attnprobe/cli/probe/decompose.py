"""attnprobe probe decompose: what scores are made of, position, content or both."""

from attnprobe.cli.probe.driver import Findings, Request, make_command
from attnprobe.cli.probe.options import Models
from attnprobe.cli.probe.table import Column, Table, interval

TABLE = Table(
    title="shares of the variance of the scores",
    keys=("checkpoint", "layer", "head"),
    columns=tuple(
        Column(heading=part, where={"quantity": f"{part}_share"}, text=interval(".3f"))
        for part in ("position", "content", "interaction")
    ),
    ranked_by="position_share",
)


def decompose(request: Request, checkpoints: Models) -> Findings:
    """Split the scores into position, content and interaction parts, and say how much of their variance each has.

    Examples:

        attnprobe probe decompose runs/textures-s0/checkpoints/pretrained.pt

        attnprobe probe decompose runs/textures-s0/checkpoints/*.pt --figure parts --csv parts.csv

    The parts sum to the scores exactly, the shares to 1; a part that works against the others has a negative share.
    """
    from attnprobe.probes.decomposition import measure
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
        verdict=verdicts.decompose,
        results=found.results,
        captures=found.captures(),
        draw=lambda name: draw_quantities({label: result.rows for label, result in found.results.items()}, name),
    )


command = make_command(decompose, needs="scores")
