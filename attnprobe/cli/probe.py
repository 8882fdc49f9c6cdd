"""attnprobe probe: measurements on checkpoints."""

import typer

probe_app = typer.Typer(name="probe", help="Measure attention in checkpoints.", no_args_is_help=True)


@probe_app.callback()
def probe() -> None: ...
