"""attnprobe study: grids of runs as data, from the list of studies to their tables."""

import typer

from attnprobe.cli.study.listing import list_studies
from attnprobe.cli.study.render import render
from attnprobe.cli.study.run import run
from attnprobe.cli.study.show import show
from attnprobe.cli.study.status import status

study_app = typer.Typer(name="study", help="Grids of runs that answer one question each.", no_args_is_help=True)
study_app.command("list")(list_studies)
study_app.command()(show)
study_app.command()(run)
study_app.command()(status)
study_app.command()(render)
