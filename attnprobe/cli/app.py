"""The commands in one place, and what happens when one fails."""

import inspect
import os
import sys
from typing import Annotated

import typer

from attnprobe import __version__
from attnprobe.cli.bench import bench
from attnprobe.cli.calibrate import calibrate
from attnprobe.cli.compare import compare
from attnprobe.cli.completion import join_assignments
from attnprobe.cli.data.command import data_app
from attnprobe.cli.demo import demo
from attnprobe.cli.doctor import doctor
from attnprobe.cli.model import model_app
from attnprobe.cli.presets import presets
from attnprobe.cli.probe import probe_app
from attnprobe.cli.report import report
from attnprobe.cli.reproduce import reproduce
from attnprobe.cli.runs import runs
from attnprobe.cli.screen.output import console, drop_stdout, prepare_streams, print_error
from attnprobe.cli.screen.usage import call
from attnprobe.cli.settings import settings
from attnprobe.cli.study import study_app
from attnprobe.cli.theory import theory_app
from attnprobe.cli.train.command import train
from attnprobe.errors import explain

CODES = """Exit codes: 0 ok, 1 run failed, 2 usage, 3 unreadable or incompatible file, 4 probe not applicable,
5 a check failed, 130 interrupted. A traceback is shown with ATTNPROBE_DEBUG=1."""

app = typer.Typer(
    name="attnprobe",
    help="Measure attention mechanisms and explain how their training signal shapes them.",
    epilog=CODES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train)
app.command()(runs)
app.command()(compare)
app.command()(reproduce)
app.command()(report)
app.command()(demo)
app.command()(presets)
app.command()(settings)
app.command()(bench)
app.command()(calibrate)
app.command()(doctor)
app.add_typer(model_app)
app.add_typer(probe_app)
app.add_typer(study_app)
app.add_typer(theory_app)
app.add_typer(data_app)


def keep_indentation(group: typer.Typer) -> None:
    """Typer takes the indentation off examples that end a docstring; a last line at the margin prevents it."""
    for command in group.registered_commands:
        text = inspect.getdoc(command.callback) or ""
        if text.splitlines()[-1].startswith(" "):
            command.help = f"{text}\n\nExit codes: attnprobe --help"
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        keep_indentation(inner.typer_instance)


keep_indentation(app)


def print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"attnprobe {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; whatever goes wrong is one line with a hint, with ATTNPROBE_DEBUG=1 a traceback."""
    # Threads that wait for each other by spinning cost a busy machine several times the work they share. This must be
    # set before torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    join_assignments(os.environ)
    prepare_streams()
    try:
        try:
            call(app, arguments)
        except SystemExit:
            sys.stdout.flush()  # now, while a full disk can still be told
            raise
    except KeyboardInterrupt:
        console.print("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        drop_stdout()
        sys.exit(1)
    except Exception as error:
        if os.environ.get("ATTNPROBE_DEBUG"):
            raise
        if isinstance(error, OSError):
            drop_stdout()
        known = explain(error)
        print_error(known)
        sys.exit(known.exit_code)
