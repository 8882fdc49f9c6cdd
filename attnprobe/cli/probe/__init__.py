"""attnprobe probe: measurements on checkpoints, one command each."""

import typer

from attnprobe.cli.probe import alignment, decompose, intervene, kernels, proximity, trajectory

probe_app = typer.Typer(name="probe", help="Measure attention in checkpoints.", no_args_is_help=True)
for module in (proximity, alignment, intervene, decompose, kernels, trajectory):
    probe_app.command()(module.command)
probe_app.command("telemetry", hidden=True)(trajectory.command)  # its earlier name
