"""attnprobe probe: measurements on checkpoints, one command each."""

import typer

from attnprobe.cli.probe_alignment import alignment
from attnprobe.cli.probe_decompose import decompose
from attnprobe.cli.probe_intervene import intervene
from attnprobe.cli.probe_proximity import proximity
from attnprobe.cli.probe_telemetry import telemetry

probe_app = typer.Typer(name="probe", help="Measure attention in checkpoints.", no_args_is_help=True)
probe_app.command()(proximity)
probe_app.command()(alignment)
probe_app.command()(intervene)
probe_app.command()(decompose)
probe_app.command()(telemetry)
