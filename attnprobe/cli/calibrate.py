"""attnprobe calibrate: is every p-value, interval and verdict what it says?"""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnprobe.cli.screen.output import (
    CHECK_FAILED,
    Full,
    Json,
    Quiet,
    Seed,
    print_json,
    print_table,
    print_verdict,
    progress_bar,
    say,
)
from attnprobe.errors import ConfigError
from attnprobe.files.outputs import check_outputs, figure_files
from attnprobe.files.ownership import one_writer_of

if TYPE_CHECKING:
    from attnprobe.calibration.records import Key, Records
    from attnprobe.calibration.verdicts import Row


def calibrate(
    replicas: Annotated[int, typer.Option(min=1, help="Models with data of their own, in every cell.")] = 200,
    cells: Annotated[
        list[str] | None,
        typer.Option(help="Only these: positions, visibility or data = values; repeat.", show_default="all"),
    ] = None,
    probe: Annotated[
        list[str] | None, typer.Option(help="Only what this probe promises; repeat.", show_default="all")
    ] = None,
    power: Annotated[bool, typer.Option(help="Also plant effects of three sizes for every test.")] = True,
    records: Annotated[
        Path, typer.Option(help="Every finished replica is kept here; the same command goes on with it.")
    ] = Path("calibration.jsonl"),
    out: Annotated[Path | None, typer.Option(help="Also write a Markdown page.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write every rate as CSV.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw the rates: NAME.png and NAME.pdf.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="one per core")] = None,
    seed: Seed = 0,
    full: Full = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare what the tool promises with what it does, where the truth is known. Exit code 5 if a promise is broken.

    Small untrained models meet data without structure: false positives at .05 should be 5 %, intervals of 95 % should
    cover 95 %. Then effects are planted, to see how often they are found.

    Examples:

        attnprobe calibrate --out CALIBRATION.md

        attnprobe calibrate --replicas 20 --cells positions=learned,rotary --cells data=white

        attnprobe calibrate --probe proximity --no-power --csv rates.csv

    Ctrl-C stops, and shows what was finished; it stays in --records.
    """
    outputs = [("--records", "calibration", [records])]
    outputs += [(name, "calibration", [path]) for name, path in (("--out", out), ("--csv", csv)) if path is not None]
    if figure is not None:
        outputs.append(("--figure", "figure", figure_files(figure)))
    check_outputs(outputs)  # pyright: ignore[reportArgumentType]
    with one_writer_of(records):
        wanted, kept = prepare(replicas, cells or [], probe or [], power, records, seed)
        complete = measure(wanted, kept, seed=seed, jobs=jobs, quiet=quiet or json)
    rows = judged(wanted, kept)
    document = write(rows, wanted, kept, records=records, out=out, csv=csv, figure=figure) if rows else {}
    if json:
        print_json(document)
    elif rows and not quiet:
        show(rows, full=full)
        for path in document["figures"]:
            say(f"figure: {path}")
    if not complete:
        say(f"stopped: this is what was finished; {records} keeps it, and the same command goes on")
        raise typer.Exit(130)
    if any(row.miscalibrated for row in rows):
        raise typer.Exit(CHECK_FAILED)


def prepare(
    replicas: int, cells: list[str], probes: list[str], power: bool, path: Path, seed: int
) -> "tuple[list[Key], Records]":
    from attnprobe.calibration.checks import CHECKS
    from attnprobe.calibration.grid import keys
    from attnprobe.calibration.records import Records
    from attnprobe.calibration.worlds import chosen_cells

    unknown = [name for name in probes if name not in CHECKS]
    if unknown:
        raise ConfigError(f"nothing is known of a probe {unknown[0]!r}", hint=f"choose from {', '.join(CHECKS)}")
    chosen = [name for name in CHECKS if not probes or name in probes]
    wanted = keys(chosen_cells(cells), chosen, replicas, power=power)
    if not wanted:
        raise ConfigError("nothing is asked of these probes in these cells", hint="leave out --cells, or --probe")
    return wanted, Records(path, seed=seed)


def measure(wanted: "list[Key]", kept: "Records", *, seed: int, jobs: int | None, quiet: bool) -> bool:
    """False if it was stopped."""
    from attnprobe import machine
    from attnprobe.calibration.grid import run
    from attnprobe.launch.signals import stop_on_signal

    known = len(kept.chosen(wanted))
    if known:
        say(f"{known} of {len(wanted)} answers are in {kept.path} already", quiet=quiet)
    with stop_on_signal() as stop, progress_bar("calibration", quiet=quiet) as report:
        return run(wanted, kept, seed=seed, jobs=jobs or machine.cores(), stop=stop, progress=report)


def judged(wanted: "list[Key]", kept: "Records") -> "list[Row]":
    from attnprobe.calibration.verdicts import judge

    found = kept.chosen(wanted)
    return judge((record.cell, record.probe, outcome) for record in found for outcome in record.outcomes)


def write(
    rows: "list[Row]",
    wanted: "list[Key]",
    kept: "Records",
    *,
    records: Path,
    out: Path | None,
    csv: Path | None,
    figure: Path | None,
) -> dict[str, Any]:
    """All files that were asked for; the document for machines."""
    import dataclasses

    import torch

    from attnprobe.bench.report import surroundings
    from attnprobe.cli.probe.files import write_csv
    from attnprobe.files import write_text
    from attnprobe.report.calibration_figure import draw_calibration
    from attnprobe.report.calibration_page import page, verdict

    plain = [dataclasses.asdict(row) for row in rows]
    seconds = sum(record.seconds for record in kept.chosen(wanted))
    typed = sys.argv[2:] if sys.argv[1:2] == ["calibrate"] else []
    command = shlex.join(["attnprobe", "calibrate", *typed])
    if out is not None:
        where = surroundings(torch.device("cpu"))
        commits = kept.commits(wanted)
        text = page(rows, command=command, commits=commits, where=where, settings=kept.heading, seconds=seconds)
        write_text(out, text)
    if csv is not None:
        write_csv(csv, plain, kind="calibration")
    figures = draw_calibration(rows, figure) if figure is not None else []
    return {
        "passed": not any(row.miscalibrated for row in rows),
        "verdict": verdict(rows),
        "settings": kept.heading,
        "commits": kept.commits(wanted),
        "seconds": seconds,
        "records": records,
        "rows": plain,
        "figures": figures,
    }


def show(rows: "list[Row]", *, full: bool) -> None:
    from attnprobe.calibration.verdicts import summaries
    from attnprobe.report.calibration_page import power_line, rate, short, summary_line, verdict, what

    if full:
        lines = [
            [row.cell, row.probe, what(row), short(row.nominal), rate(row), str(row.refused), row.verdict]
            for row in rows
            if row.kind != "power"
        ]
        columns = ["cell", "probe", "promise", "nominal", "actual", "refused", "verdict"]
        print_table("nominal against actual, cell by cell", columns, lines, numeric_from=3, keys=3)
    else:
        narrow = [[*line[:4], *line[5:]] for line in map(summary_line, summaries(rows))]  # without the farthest cell
        columns = ["probe", "promise", "nominal", "actual", "outside", "verdict"]
        print_table("nominal against actual, over all cells", columns, narrow, numeric_from=2)
    if power := [power_line(row) for row in rows if row.kind == "power"]:
        columns = ["planted", "unit", "probe", "test", "size", "found"]
        print_table("\nplanted effects: how often they are found", columns, power, numeric_from=4, keys=2)
    print_verdict(verdict(rows))
