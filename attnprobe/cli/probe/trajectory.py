"""attnprobe probe telemetry: what was measured while runs trained."""

from pathlib import Path
from typing import Annotated, Any

import typer

from attnprobe.cli.probe.driver import Findings, Request, make_command
from attnprobe.cli.probe.files import Record
from attnprobe.cli.probe.table import MOST_LINES, Column, Table, estimate, interval, probability
from attnprobe.cli.screen.output import say
from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.files import parse_json, reading

FILE = "telemetry.jsonl"
KEYS = ("run", "phase", "step", "layer", "head", "quantity", "direction")  # what tells rows of one run apart


def telemetry(
    request: Request,
    runs: Annotated[list[Path], typer.Argument(help="Run directories trained with --probe-every.")],
) -> Findings:
    """Proximity bias and both losses' gradients along proximity, against the training step.

    Examples:

        attnprobe train --probe-every 2 && attnprobe probe telemetry runs/textures-s0

        attnprobe probe telemetry runs/textures-s* --figure telemetry --csv telemetry.csv

    The table follows one head of every run, the one whose bias is the largest in size at the end, at a few steps.
    """
    from attnprobe.report import verdicts
    from attnprobe.report.trajectory_figures import draw_telemetry

    if len({folder.resolve() for folder in runs}) < len(runs):
        raise ConfigError("the same run is given twice", hint="leave one of them out")
    records = [record for folder in runs for record in read(folder)]
    return Findings(
        records=records,
        table=table(records),
        verdict=verdicts.telemetry,
        draw=lambda name: draw_telemetry(records, name),
    )


def table(records: list[Record]) -> Table:
    """Without --full of every run one head, at its first and last step and some between."""
    from attnprobe.report.verdicts import followed_heads

    heads = followed_heads(records)
    steps: dict[tuple[Any, ...], list[int]] = {}
    for record in records:
        known = steps.setdefault((record["run"], record["phase"]), [])
        known += [record["step"]] if record["step"] not in known else []
    most = max(2, MOST_LINES // len(steps))
    few = {place: set(thinned(sorted(known), most)) for place, known in steps.items()}

    def wanted(record: Record) -> bool:
        own = heads.get(record["run"]) == (record["layer"], record["head"])
        return own and record["step"] in few[record["run"], record["phase"]]

    return Table(
        title="telemetry",
        keys=("run", "phase", "step", "layer", "head"),
        columns=(
            Column(heading="proximity bias", where={"quantity": "proximity_bias"}, text=interval("+.2f")),
            Column(heading="reconstruction t", where={"quantity": "reconstruction.t"}, text=estimate("+.1f")),
            Column(heading="labels' part t", where={"quantity": "label.dependent.t"}, text=estimate("+.1f")),
            Column(heading="its q", where={"quantity": "label.dependent.mean"}, text=probability("q_value")),
            Column(heading="its p", where={"quantity": "label.dependent.mean"}, text=probability("p_value"), full=True),
        ),
        wanted=wanted,
    )


def thinned(steps: list[int], most: int) -> list[int]:
    """The first, the last, and evenly spaced ones between."""
    if len(steps) <= most:
        return steps
    return [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]


def read(folder: Path) -> list[Record]:
    """The tidy rows of one run; of a step that was measured twice (after an interruption) the later ones.

    An interruption may also leave half a line at the end: it is left out, with a line on stderr. Anything else that is
    no record is an ArtifactError.
    """
    path = folder / FILE
    if not path.exists():
        raise ArtifactError(f"{path} does not exist", hint="train with --probe-every 2 to record it")
    with reading(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records: dict[tuple[Any, ...], Record] = {}
    for number, line in enumerate(lines, 1):
        try:
            with reading(path):
                # by the folder it was read from: that of its training may have another's name, or be called otherwise
                record = check_record(parse_json(line)) | {"run": str(folder)}
                records[tuple(record[key] for key in KEYS)] = record
        except ArtifactError:
            if number < len(lines):
                raise ArtifactError(f"{path}: line {number} is damaged", hint="remove that line") from None
            say(f"warning: the last line of {path} was cut off by an interruption and is left out")
    if not records:
        raise ArtifactError(f"{path} is empty", hint="was the run interrupted before its first step?")
    return list(records.values())


def check_record(record: Record) -> Record:
    """ValueError or KeyError if a row does not hold what tables and figures take from it."""
    kinds = {"run": str, "phase": str, "quantity": str, "step": int, "layer": int, "head": int}
    wrong = [name for name, kind in kinds.items() if type(record[name]) is not kind]
    numbers = {"estimate": record["estimate"], "p_value": record["p_value"], "low": record.get("low")}
    wrong += [name for name, value in (numbers | {"high": record.get("high")}).items() if not is_number(value)]
    if wrong or not isinstance(record["direction"], str | None):
        raise ValueError(f"{wrong[0] if wrong else 'direction'} is of the wrong kind")
    return record


def is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


command = make_command(
    telemetry,
    reads=FILE,
    without=("sequences", "split", "level", "memory_limit", "seed", "device", "data_dir", "npz"),
)
