"""attnprobe report: one HTML page about runs."""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnprobe.cli.screen.output import DataDir, Device, Json, Quiet, Seed, print_json, progress_bar, say
from attnprobe.files.outputs import check_outputs
from attnprobe.opening import Opener, SplitName

if TYPE_CHECKING:
    from attnprobe.report.page.material import Theory

LENGTH, DIM = 64, 5  # of the theory's problems, as `attnprobe theory verify` has them


def report(
    paths: Annotated[
        list[Path], typer.Argument(help="Runs, folders of runs, and folders of rendered studies.", metavar="RUNS...")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page; one that attnprobe wrote is replaced.")] = Path(
        "report.html"
    ),
    title: Annotated[str | None, typer.Option(help="Heading of the page.", show_default="the folders' names")] = None,
    no_probes: Annotated[bool, typer.Option("--no-probes", help="Measure nothing on the checkpoints.")] = False,
    no_theory: Annotated[bool, typer.Option("--no-theory", help="Leave out the check of the theory.")] = False,
    sequences: Annotated[int, typer.Option("--sequences", "-n", min=2, help="Sequences to probe on.")] = 200,
    seed: Seed = 0,
    device: Device = "auto",
    data_dir: DataDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write one page about runs: what was run, accuracies, curves, probes of their checkpoints, theory, manifest.

    Examples:

        attnprobe report runs -o report.html

        attnprobe report demo/runs --title "Textures" -n 500

        attnprobe report studies/qk-transfer-laptop --no-theory

        attnprobe report runs/textures-s0 runs/textures-scratch-s0 --no-probes --no-theory

    The page is one file without references to others: it can be mailed, printed and read without a network. Runs that
    differ in nothing but the seed are an arm; of every arm the first finished run is probed.
    """
    from attnprobe.files import write_text
    from attnprobe.machine import now
    from attnprobe.report.page.material import Material, find_runs, read_arms, read_studies
    from attnprobe.report.page.page import make_page
    from attnprobe.report.page.probing import probe_arms

    silent = quiet or json
    studies = read_studies(paths)
    given = [path for path in paths if path not in studies]
    listed = [] if not given else find_runs(given, lambda text: say(f"warning: {text}", quiet=quiet))
    check_outputs([("--out", "report", [out])], [Path(run.folder) / "run.toml" for run in listed])
    arms, probed = read_arms(listed), None
    if not no_probes:
        opener = Opener(split=SplitName.test, device=device, data_dir=data_dir)
        with progress_bar("probing", quiet=silent) as progress:
            probed = probe_arms(arms, opener, n=sequences, seed=seed, progress=progress)
        for each in probed:
            if each.reason:
                say(f"warning: {each.folder} was not probed: {each.reason}", quiet=quiet)
    material = Material(
        title=title or ", ".join(path.resolve().name for path in paths),
        command=shlex.join(["attnprobe", *sys.argv[1:]]),
        written=now(),
        listed=listed,
        arms=arms,
        studies=list(studies.values()),
        probed=probed,
        theory=None if no_theory else theory(seed, quiet=silent),
    )
    write_text(out, make_page(material))
    if json:
        print_json({"report": str(out), "bytes": out.stat().st_size, "runs": [run.folder for run in listed]})
    else:
        say(f"report: {out}", quiet=quiet)


def theory(seed: int, *, quiet: bool) -> "Theory":
    from attnprobe.cli.theory import rows_for
    from attnprobe.report import verdicts
    from attnprobe.report.page.material import Theory

    rows = rows_for(None, LENGTH, DIM, seed, quiet=quiet)
    return Theory(
        rows=[dataclasses.asdict(row) for row in rows],
        verdict=verdicts.theory(rows, length=LENGTH, dim=DIM),
        passed=all(row.passed for row in rows),
    )
