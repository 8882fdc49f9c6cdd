"""What a calibration found, as a Markdown page and in words."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from attnprobe.calibration.checks import alignment, interventions, kernels
from attnprobe.calibration.planted import PLANTED
from attnprobe.calibration.verdicts import EVERY_CELL, PROMISES, Row, Summary, summaries

HOW = """{replicas} replicas in every cell. A replica is a new untrained model (one layer, two heads) with new data,
{sequences} sequences of {length} positions. Heads of one model are not independent, so one head of each counts, drawn
at random; quantities over all heads count once a model. Where an interval is judged, the truth is the value of the same
model on {population} other sequences, by dense formulas that share no code with the probe (means over shuffled
profiles: by {shuffles} shuffles; of kernels: the mean of {channels} other channels). Real data: {real data}, the
positions in an order drawn anew for every replica. Rates stand with exact 95 % intervals (Clopper and Pearson).
Wanted are false positives at .05 between {tests} and intervals of 95 % that cover between {intervals}. A cell is
*outside* (set in bold) if its own interval misses that, which chance does now and then; it is *miscalibrated* if that
stays so after Holm's adjustment for all {rows} rows."""


UNJUDGED = """Not judged, because no truth is known here or because they say nothing new: cosines and their intervals
where labels carry nothing (the mean gradient they divide by is zero; their p-values are judged), offset shares of mean
gradients, t and prices of detection (functions of means that are judged), bands under a null, profiles by offset and
shares by frequency, the intervals of pooled seeds other than the mean bias and what is beyond their null, the interval
of the largest head (which leaves out that it was chosen, and says so), accuracies (Wilson's interval of a share),
exchanged W_Q and W_K, q-values among random orders ({orders} of them cannot give a small one), and the phase null,
whose own hypothesis (a gradient that is a stationary field) no small model offers."""


def page(
    rows: Sequence[Row],
    *,
    command: str,
    commits: Sequence[str],
    where: dict[str, Any],
    settings: dict[str, Any],
    seconds: float,
) -> str:
    """commits: those at which the replicas were measured; seconds: of processor time, of all replicas."""
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    parts = [
        f"`{command}`, {where['date']}, {at(commits)}code {settings['code']}, {where['cpu']}, "
        f"Python {where['python']}, {versions}, {seconds / 60:.0f} minutes of processor time.",
        "# Calibration: nominal against actual",
        how(rows, settings),
        verdict(rows),
        "## Promises, over all cells",
        table(
            ["probe", "what", "nominal", "actual", "farthest cell", "cells outside", "verdict"],
            [summary_line(summary) for summary in summaries(rows)],
        ),
    ]
    if power := [row for row in rows if row.kind == "power"]:
        parts += ["## Power: planted effects", power_table(power)]
    if refusals := _refusals(rows):
        parts += ["## Refused", table(["probe", "what", "cells", "reason"], refusals)]
    parts += ["## Every cell", *_by_probe(rows), "## Not judged", UNJUDGED.format(orders=alignment.ORDERS)]
    return "\n\n".join(parts) + "\n"


def how(rows: Sequence[Row], settings: dict[str, Any]) -> str:
    """What was done, and what was wanted."""
    wanted = {kind: f"{promise.low:g} and {promise.high:g}".replace("0.", ".") for kind, promise in PROMISES.items()}
    return HOW.format(
        replicas=_replicas(rows), shuffles=interventions.SHUFFLES, channels=kernels.CHANNELS,
        tests=wanted["p-value"], intervals=wanted["interval"],
        rows=sum(row.kind != "power" and row.replicas > 0 for row in rows), **settings,
    )  # fmt: skip


def at(commits: Sequence[str]) -> str:
    """Nothing outside git."""
    text = f"at commit{'s' if len(commits) > 1 else ''} {' and '.join(commits)}, " if commits else ""
    return text.replace("+", " with changes that were not committed")


def _replicas(rows: Sequence[Row]) -> str:
    """Fewer in some cells if it was stopped."""
    counts = {row.replicas + row.refused for row in rows if row.cell != EVERY_CELL}
    return f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def summary_line(summary: Summary) -> list[str]:
    row, worst = summary.together, summary.worst
    farthest = f"{worst.cell} {short(worst.rate)}" if worst is not None else ""
    refused = sum(cell.refused > 0 for cell in summary.cells)
    outside = f"{len(summary.outside)} of {len(summary.answered)}" + (f", {refused} refused" if refused else "")
    return [row.probe, what(row), short(row.nominal), rate(row), farthest, outside, summary.verdict]


def what(row: Row) -> str:
    return f"{row.quantity}: {PROMISES[row.kind].event if row.kind in PROMISES else 'found'}"


def rate(row: Row) -> str:
    return f"{short(row.rate)} [{short(row.low)}, {short(row.high)}]" if row.replicas else "refused"


def short(value: float | None) -> str:
    """.053: rates need no zero before the point."""
    if value is None or value != value:
        return ""
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0") else text


def power_table(rows: Sequence[Row]) -> str:
    return table(["planted", "unit", "probe", "what", "size", "found"], [power_line(row) for row in rows])


def power_line(row: Row) -> list[str]:
    effect, size = row.cell.split(" ")
    return [effect, PLANTED[effect].what, row.probe, row.quantity, size, rate(row)]


def _refusals(rows: Sequence[Row]) -> list[list[str]]:
    cells: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for row in rows:
        if row.refused and row.cell != EVERY_CELL:
            count = "" if not row.replicas else f" ({row.refused} of {row.refused + row.replicas})"
            cells[row.probe, row.quantity, row.reason].append(row.cell + count)
    return [[probe, quantity, ", ".join(found), reason] for (probe, quantity, reason), found in cells.items()]


def _by_probe(rows: Sequence[Row]) -> list[str]:
    """A table per probe: a line per cell, a column per quantity."""
    parts = []
    mine = [row for row in rows if row.kind != "power" and row.cell != EVERY_CELL]
    for probe in dict.fromkeys(row.probe for row in mine):
        columns = list(dict.fromkeys(what(row) for row in mine if row.probe == probe))
        found = {(row.cell, what(row)): row for row in mine if row.probe == probe}
        lines = [
            [cell, *(_mark(found.get((cell, column))) for column in columns)]
            for cell in dict.fromkeys(row.cell for row in mine if row.probe == probe)
        ]
        parts += [f"### {probe}", table(["cell", *columns], lines)]
    return parts


def _mark(row: Row | None) -> str:
    if row is None:
        return ""
    if not row.replicas:
        return "refused"
    text = short(row.rate)
    return f"**{text}** {row.verdict}" if row.miscalibrated else f"**{text}**" if row.outside != "ok" else text


def table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in line] for line in (columns, ["---"] * len(columns), *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def verdict(rows: Sequence[Row]) -> str:
    """What was found, in a few sentences."""
    judged = [row for row in rows if row.kind != "power"]
    answered = [row for row in judged if row.replicas and row.cell != EVERY_CELL]
    outside = [row for row in answered if row.outside != "ok"]
    refused = [row for row in judged if row.refused and row.cell != EVERY_CELL]
    said = [
        f"{len(answered) - len(outside)} of {len(answered)} rates agree with what is promised within their own "
        "exact intervals."
    ]
    bad = [summary for summary in summaries(rows) if summary.miscalibrated]
    if not bad:
        said.append("None is miscalibrated once adjusted for their number.")
    for summary in bad:
        row, cells = summary.together, sum(row.miscalibrated for row in summary.cells)
        said.append(
            f"Miscalibrated ({summary.verdict}): {row.probe} {what(row)}, {short(row.rate)} instead of "
            f"{short(row.nominal)} over all cells, {cells} of {len(summary.answered)} cells by themselves."
        )
    if refused:
        said.append(f"{len(refused)} more are refused by the probe, in all or some replicas, with its reason.")
    return " ".join(said)
