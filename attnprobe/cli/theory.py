"""attnprobe theory: the claims about local blindness, checked numerically."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnprobe.cli.probe import certify
from attnprobe.cli.screen.output import (
    CHECK_FAILED,
    Full,
    Json,
    Quiet,
    console,
    print_json,
    print_table,
    print_verdict,
    say,
)
from attnprobe.cli.train.seeds import chosen_seeds
from attnprobe.errors import ConfigError
from attnprobe.files.outputs import check_outputs, figure_files

if TYPE_CHECKING:
    from theory.rows import Row

theory_app = typer.Typer(name="theory", help="Check the theory of local blindness.", no_args_is_help=True)
theory_app.command()(certify.command)


@theory_app.command()
def verify(
    claims: Annotated[str | None, typer.Option(help="Only these, e.g. C1,C4.", show_default="all")] = None,
    length: Annotated[int, typer.Option(min=3, max=512, help="Sequence length L.")] = 64,
    dim: Annotated[int, typer.Option(min=1, help="Input dimension d.")] = 5,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.", show_default="0")] = None,
    seeds: Annotated[str | None, typer.Option(help="Several seeds: a number (5 = 0..4) or a list (0,3,7).")] = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw the figures into this folder.")] = None,
    full: Full = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Verify every claim: predicted against measured, negative controls included. Exit code 5 if a row fails.

    Examples:

        attnprobe theory verify

        attnprobe theory verify --claims C1,C4 --length 33

        attnprobe theory verify --seeds 5 --json

        attnprobe theory verify --figure figures

    A negative control is a row in which an assumption is broken; it passes if the effect breaks with it.
    """
    from attnprobe.report import verdicts

    if figure is not None:
        check_figures(figure)
    wanted = [name.strip() for name in claims.split(",")] if claims is not None else None
    rows: list[tuple[int, Row]] = []
    for number in chosen_seeds(seed, seeds, default=0):
        rows += [(number, row) for row in rows_for(wanted, length, dim, number, quiet=quiet or json)]
    passed = all(row.passed for _, row in rows)
    figures = draw(figure, length, dim, rows[0][0]) if figure is not None else []
    verdict = verdicts.theory([row for _, row in rows], length=length, dim=dim)
    if json:
        records = [dataclasses.asdict(row) | {"seed": number} for number, row in rows]
        paths = [str(path) for path in figures]
        print_json({"passed": passed, "verdict": verdict, "rows": records, "figures": paths})
    elif not quiet:
        show(rows, full=full)
        print_verdict(verdict)
        for path in figures:
            say(f"figure: {path}")
    if not passed:
        raise typer.Exit(CHECK_FAILED)


def rows_for(claims: list[str] | None, length: int, dim: int, seed: int, *, quiet: bool) -> "list[Row]":
    from theory.checks import verify as verify_claims

    with console.status("theory", spinner="line") as status:
        status.update("checking")

        def progress(text: str) -> None:
            if not quiet:
                status.update(text)

        try:
            return verify_claims(claims=claims, length=length, dim=dim, seed=seed, progress=progress)
        except ValueError as error:
            raise ConfigError(str(error), hint="see attnprobe theory verify --help") from None


def check_figures(folder: Path) -> None:
    """Before the long work: may the figures be written there, and replace what stands there?"""
    from theory.drawing.figures import FIGURES

    check_outputs([("--figure", "figure", [file for name in FIGURES for file in figure_files(folder / name)])])


def draw(folder: Path, length: int, dim: int, seed: int) -> list[Path]:
    from attnprobe.files import writing
    from theory.drawing.figures import draw as draw_figures

    with writing(folder):
        return draw_figures(folder, length=length, dim=dim, seed=seed)


def show(rows: "list[tuple[int, Row]]", *, full: bool) -> None:
    """A line per claim and seed, then the rows that fail; with ``full`` every row."""
    if not full:
        show_claims(rows)
        rows = [(number, row) for number, row in rows if not row.passed]
    if not rows:
        return
    several = len({number for number, _ in rows}) > 1
    lines = []
    for number, row in rows:
        relation = ">" if row.control else "<="
        line = [row.claim, row.quantity + (f" (seed {number})" if several else ""), f"{row.predicted:.6g}"]
        line += [f"{row.measured:.6g}", f"{row.error:.1e}", f"{relation} {row.tolerance:.1e}"]
        lines.append([*line, "pass" if row.passed else "FAIL", "control" if row.control else ""])
    columns = ["claim", "quantity", "predicted", "measured", "error", "must be", "verdict", ""]
    title = "theory: predicted against measured" if full else "rows that fail"
    print_table(f"{title} (a control passes when the effect breaks)", columns, lines, numeric_from=2, keys=2)


def show_claims(rows: "list[tuple[int, Row]]") -> None:
    from theory.rows import count

    lines = []
    for claim, number in dict.fromkeys((row.claim, number) for number, row in rows):
        found = count(row for seed, row in rows if (row.claim, seed) == (claim, number))
        predictions = f"{found.predictions_passed} of {found.predictions}"
        controls = f"{found.controls_passed} of {found.controls}"
        verdict = "pass" if found.passed else "FAIL"
        lines.append([claim, f"seed {number}", predictions, controls, f"{found.largest:.1g}", verdict])
    columns = ["claim", "seed", "predictions pass", "controls pass", "largest error / tolerance", "verdict"]
    print_table("theory: predicted against measured", columns, lines, numeric_from=2, keys=2)
    say(f"{len(lines)} lines for {len(rows)} rows; --full shows all")
