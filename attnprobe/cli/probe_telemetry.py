"""attnprobe probe telemetry: what was measured while runs trained."""

from pathlib import Path
from typing import Annotated, Any

import typer

from attnprobe.cli.output import Json, Quiet, print_table, say
from attnprobe.cli.probe_checks import check_outputs
from attnprobe.cli.probe_options import Csv, Figure
from attnprobe.cli.tidy import deliver
from attnprobe.errors import ArtifactError
from attnprobe.files import parse_json, reading

Record = dict[str, Any]

KEYS = ("run", "phase", "step", "layer", "head", "quantity", "direction")  # what tells rows of one run apart


def telemetry(
    runs: Annotated[list[Path], typer.Argument(help="Run directories trained with --probe-every.")],
    csv: Csv = None,
    figure: Figure = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Proximity bias and both losses' gradients along proximity, against the training step.

    Examples:

        attnprobe train --probe-every 2 && attnprobe probe telemetry runs/textures-s0

        attnprobe probe telemetry runs/textures-s* --figure telemetry --csv telemetry.csv
    """
    check_outputs([folder / "telemetry.jsonl" for folder in runs], csv=csv, figure=figure)
    records = [record for folder in runs for record in read(folder)]
    if not (json or quiet):
        show(records)
    figures: list[Path] = []
    if figure is not None:
        from attnprobe.report.telemetry_figures import draw_telemetry

        figures = draw_telemetry(records, figure)
    deliver(runs, records, {}, figures, csv=csv, npz=None, json=json, quiet=quiet)


def read(folder: Path) -> list[Record]:
    """The tidy rows of one run; of a step that was measured twice (after an interruption) the later ones.

    An interruption may also leave half a line at the end: it is left out, with a line on stderr. Anything else that is
    no record is an ArtifactError.
    """
    path = folder / "telemetry.jsonl"
    if not path.exists():
        raise ArtifactError(f"{path} does not exist", hint="train with --probe-every 2 to record it")
    with reading(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records: dict[tuple[Any, ...], Record] = {}
    for number, line in enumerate(lines, 1):
        try:
            with reading(path):
                record = check_record(parse_json(line))
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


def show(records: list[Record]) -> None:
    """One line per phase and step: of all heads and runs the strongest."""
    lines = []
    for phase, step in dict.fromkeys((r["phase"], r["step"]) for r in records):
        here = [r for r in records if (r["phase"], r["step"]) == (phase, step)]

        def strongest(quantity: str, here: list[Record] = here) -> str:
            values = [r["estimate"] for r in here if r["quantity"] == quantity and r["estimate"] is not None]
            return f"{max(values, key=abs):+.2f}" if values else ""

        p_values = [r["p_value"] for r in here if r["quantity"] == "label.dependent.mean"]
        smallest = min((p for p in p_values if p is not None), default=None)
        texts = [strongest(q) for q in ("proximity_bias", "reconstruction.t", "label.dependent.t")]
        lines.append([phase, str(step), *texts, "" if smallest is None else f"{smallest:.3f}"])
    columns = ["phase", "step", "proximity bias", "reconstruction t", "labels' part t", "its smallest p"]
    print_table("strongest head at every step", columns, lines)
