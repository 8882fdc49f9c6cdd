"""attnprobe probe: measurements on checkpoints, one command each."""

import typer

from attnprobe.cli.probe import alignment, decompose, intervene, proximity
from attnprobe.cli.probe import trajectory as telemetry

probe_app = typer.Typer(name="probe", help="Measure attention in checkpoints.", no_args_is_help=True)
for module in (proximity, alignment, intervene, decompose, telemetry):
    probe_app.command()(module.command)
