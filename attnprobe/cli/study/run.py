"""attnprobe study run: what is missing of a study is trained and measured, then its answer is shown."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnprobe.cli.screen.output import DataDir, Device, Json, Quiet, print_json, print_table, say
from attnprobe.cli.study.options import STUDIES, Name, Out, RunSettings, ScaleName, Seeds, requested
from attnprobe.cli.study.render import write_answer
from attnprobe.cli.study.status import show_status

if TYPE_CHECKING:
    from attnprobe.studies.work.jobs import Asked

AGAIN = "the same command goes on where it stopped"


def run(
    name: Name,
    scale: ScaleName = None,
    seeds: Seeds = None,
    settings: RunSettings = None,
    out: Out = STUDIES,
    executor: Annotated[
        str, typer.Option(help="Who carries the runs out: serial, processes, ray or slurm.")
    ] = "processes",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="At most so many runs at a time.", show_default="as the executor thinks")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--executor-option", "-x", metavar="KEY=VALUE", help="E.g. threads=2. Repeatable."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster: auto, or ray://HOST:PORT.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would take, and stop.")] = False,
    device: Device = "auto",
    data_dir: DataDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train and measure what is missing of a study. What is there already, whichever study asked for it, is used.

    Examples:

        attnprobe study run qk-transfer --scale smoke

        attnprobe study run qk-transfer --scale laptop --seeds 5 --dry-run

        attnprobe study run mine.toml --jobs 2 --out mine

        attnprobe study run mine.toml --executor ray --address auto -x gpus_per_run=0.25

        attnprobe study run mine.toml --executor slurm --jobs 50 -x partition=gpu -x gpus=1 -x time=120

    Ctrl-C saves; the same command goes on where it stopped. A run that fails does not stop the others; the next time
    it is tried again.
    """
    from attnprobe.studies.work.jobs import Asked

    asked = Asked(request=requested(name, scale, seeds, settings, out), device=device, data_dir=data_dir)
    if dry_run:
        show_estimate(asked, json=json)
        return
    asked.store.claim()
    extra = [*(options or []), *([f"address={address}"] if address else [])]
    ended = carry_out(asked, executor, jobs, extra, quiet=quiet or json)
    show_end(asked, ended, json=json, quiet=quiet)


def carry_out(
    asked: "Asked", executor: str, jobs: int | None, options: list[str], *, quiet: bool
) -> "dict[str, Exception | None]":
    """Everything that is missing, with progress on stderr; after Ctrl-C exit code 130."""
    from attnprobe.cli.study.progress import StudyProgress
    from attnprobe.launch.signals import stop_on_signal
    from attnprobe.studies.executors import opened
    from attnprobe.studies.work.carrying import complete
    from attnprobe.studies.work.jobs import damaged

    for damage in damaged(asked):
        say(f"damaged, so it is done again: {damage}", quiet=quiet)
    with (
        stop_on_signal() as stop,
        opened(executor, folder=asked.store.path / "executor", jobs=jobs, options=options) as working,
        StudyProgress(quiet=quiet) as progress,
    ):
        ended = complete(asked, working, on_start=progress.started, on_change=progress.changed, should_stop=stop.is_set)
    if stop.is_set():
        say(f"interrupted; what was begun is saved in {asked.store.path}. {AGAIN}.")
        raise typer.Exit(130)
    return ended


def show_end(asked: "Asked", ended: "dict[str, Exception | None]", *, json: bool, quiet: bool) -> None:
    """How far the study is, and its tables and figures as ``attnprobe study render`` writes them."""
    from attnprobe.studies.store.status import status as status_of

    found = status_of(asked.request)
    wrong = {key: str(error) for key, error in ended.items() if error is not None}
    files = []
    if found["states"]["done"]:
        folder = asked.store.path / f"{asked.request.name}-{asked.request.scale}"
        files = write_answer(asked.request, folder, show=not (json or quiet), quiet=quiet or json)
    if json:
        print_json(found | {"failed": wrong, "files": [str(file) for file in files]})
    elif not quiet:
        show_status(found)
    if wrong:
        raise typer.Exit(1)


def show_estimate(asked: "Asked", *, json: bool) -> None:
    """Runs, trainings, steps and hours; nothing is written."""
    from attnprobe.studies.work.estimate import estimate

    found = estimate(asked)
    if json:
        print_json(found)
        return
    rows = [[name, *_numbers(part)] for name, part in found["parts"].items()]
    rows.append(["all", *_numbers(found)])
    title = f"{asked.request.name} at scale {asked.request.scale}: {found['runs']} runs"
    columns = ["part", "distinct trainings", "done", "steps to do", "time, one after the other"]
    print_table(f"{title} on {found['device']}, each of at most {found['memory'] / 2**20:,.4g} MiB", columns, rows)
    for note in found["notes"]:
        say(note)


def _numbers(part: dict[str, Any]) -> list[str]:
    from attnprobe.cli.train.output import span

    seconds = "?" if part["seconds"] is None else span(part["seconds"])
    return [f"{part['trainings']:,}", f"{part['done']:,}", f"{part['steps']:,}", seconds]
