"""attnprobe data: what there is to learn from, how to get it, whether it is right, and what it looks like."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnprobe.cli.completion import complete_sources, complete_task_setting, complete_tasks, task_names
from attnprobe.cli.data.downloads import download, in_megabytes, known_size, megabytes
from attnprobe.cli.data.summary import show_next, show_summary
from attnprobe.cli.screen.output import CHECK_FAILED, DataDir, Json, Quiet, print_json, print_table, progress_bar, say
from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.files.outputs import check_outputs

if TYPE_CHECKING:
    from attnprobe.tasks import Task

TaskSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Change a setting of the task: -s n_train=200. Repeatable.",
        autocompletion=complete_task_setting,
    ),
]

data_app = typer.Typer(name="data", help="List, fetch, generate, verify and describe data sets.", no_args_is_help=True)

Names = Annotated[
    list[str], typer.Argument(help="Tasks or sources, see attnprobe data list.", autocompletion=complete_sources)
]


@data_app.command("list")
def list_(data_dir: DataDir = None, json: Json = False, quiet: Quiet = False) -> None:
    """List all tasks and data sources, and which of them are on this computer.

    Examples:

        attnprobe data list

        attnprobe data list --json
    """
    from attnprobe.tasks.own import OWN
    from attnprobe.tasks.sources.cache import cache_dir
    from attnprobe.tasks.sources.catalogue import PUBLISHED_SOURCES, SOURCES, TASK_SOURCES
    from attnprobe.tasks.sources.copies import status

    readable = TASK_SOURCES | PUBLISHED_SOURCES
    tasks = [{"name": name, "sources": list(readable.get(name, ())), "own": OWN.get(name)} for name in task_names()]
    sources = [
        {
            "name": name,
            "title": source.title,
            "status": status(name, data_dir),
            "bytes": known_size(source),
            "urls": [file.urls[0] for file in source.files],
            "note": source.note,
        }
        for name, source in SOURCES.items()
    ]
    if json:
        print_json({"cache": str(cache_dir()), "tasks": tasks, "sources": sources})
    elif not quiet:
        rows = []
        for task in tasks:
            generated = [] if task["name"] in TASK_SOURCES or task["own"] else ["generated"]
            own = [f"your own: {task['own']}"] if task["own"] else []
            rows.append([task["name"], " or ".join([*generated, *own, *task["sources"]])])
        print_table("tasks", ["name", "reads"], rows, numeric_from=2)
        rows = [[s["name"], s["status"], megabytes(s["bytes"]), s["title"]] for s in sources]
        print_table("sources", ["name", "status", "download", "what it is"], rows, numeric_from=4)
        say(f"cache: {cache_dir()}")


@data_app.command()
def fetch(
    names: Names,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Download without asking.")] = False,
    data_dir: DataDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Download data sets after asking, go on where an earlier download broke off, check and unpack them.

    Examples:

        attnprobe data fetch image

        attnprobe data fetch imdb speech-commands --yes --data-dir /big/disk

        attnprobe data fetch listops pathfinder32
    """
    from attnprobe.tasks.sources.cache import writable
    from attnprobe.tasks.sources.catalogue import SOURCES
    from attnprobe.tasks.sources.copies import find, status

    if data_dir is not None:
        with writable(data_dir):
            data_dir.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for name in resolve(names, all_sources=False):
        if status(name, data_dir) == "ready":
            say(f"{name} is already here", quiet=quiet)
        else:
            download(name, SOURCES[name], data_dir, yes=yes, quiet=quiet)
            say(f"{name}: unpacking, which can take a while", quiet=quiet or not SOURCES[name].unpacked)
        with progress_bar(f"unpacking {name} (MB)", quiet=quiet) as report:
            _, folder = find((name,), data_dir, report=in_megabytes(report))
        results.append({"name": name, "folder": str(folder)})
        say(f"{name}: {folder}", quiet=quiet)
    if json:
        print_json({"fetched": results})


@data_app.command()
def generate(
    name: Annotated[str, typer.Argument(help="A task that draws its own data.", autocompletion=complete_tasks)],
    settings: TaskSettings = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw a task's data now; large sets are kept in the cache, where training with the same settings finds them.

    Examples:

        attnprobe data generate pathfinder

        attnprobe data generate listops -s n_train=20000 -s data_seed=3
    """
    from attnprobe.tasks.own import OWN
    from attnprobe.tasks.sources.cache import cache_dir
    from attnprobe.tasks.sources.catalogue import TASK_SOURCES
    from attnprobe.tasks.summary import summarise

    task = make_task(name, settings or [])
    if name in OWN:
        raise ConfigError(f"{name} reads your own files", hint=f"see what is in them: attnprobe data describe {name}")
    if name in TASK_SOURCES:
        raise ConfigError(f"{name} is read from files, not generated", hint=f"run `attnprobe data fetch {name}`")
    say(f"generating {name}", quiet=quiet or json)
    summary = summarise(task.load())
    if json:
        print_json({"task": name, "cache": str(cache_dir()), **summary})
    elif not quiet:
        show_summary(name, summary)


@data_app.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Tasks or sources.", show_default="all present", autocompletion=complete_sources),
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare local copies with the published checksums, sizes and counts. Exit code 5 if something differs.

    Examples:

        attnprobe data verify

        attnprobe data verify image text --data-dir /big/disk --json
    """
    from attnprobe.tasks.sources.catalogue import SOURCES
    from attnprobe.tasks.sources.copies import status
    from attnprobe.tasks.sources.copies import verify as check

    wanted = resolve(names, all_sources=True) if names else list(SOURCES)
    statuses = {name: status(name, data_dir) for name in wanted}
    present = [name for name, found in statuses.items() if found == "ready" or (found == "packed" and names)]
    left = [f"{name} ({found})" for name, found in statuses.items() if name not in present and found != "absent"]
    if left:
        say(f"not checked: {', '.join(left)}; name a packed one to have it unpacked and checked", quiet=quiet)
    if names and not present:
        raise ArtifactError(f"nothing to verify: {', '.join(wanted)} not found", hint="see `attnprobe data list`")

    def report(what: str) -> None:
        say(f"checking {what}", quiet=quiet or json)

    checks = {name: check(name, data_dir, report) for name in present}
    failed = sum(c.ok is False for found in checks.values() for c in found)
    if json:
        sources = {name: [vars(c) for c in found] for name, found in checks.items()}
        print_json({"passed": failed == 0, "sources": sources})
    elif not quiet:
        verdict = {True: "ok", False: "WRONG", None: "unknown"}
        rows = [[name, c.what, c.found, c.expected, verdict[c.ok]] for name, found in checks.items() for c in found]
        print_table("local copies", ["source", "what", "found", "expected", "verdict"], rows, numeric_from=5)
        say(f"sources checked: {len(present)}, deviations: {failed}")
    if failed:
        raise typer.Exit(CHECK_FAILED)


@data_app.command()
def describe(
    name: Annotated[str, typer.Argument(help="A task's name.", autocompletion=complete_tasks)],
    settings: TaskSettings = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw a sheet of samples into this PNG file.")] = None,
    data_dir: DataDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Load a task and print its shapes, the balance of its classes and the lengths of its sequences.

    Examples:

        attnprobe data describe textures --figure textures.png

        attnprobe data describe text -s max_length=2048 --json

        attnprobe data describe table -s path=mine.csv -s text=review -s label=stars

        attnprobe data describe images -s path=photos -s 'size=[32,32]' --figure photos.png
    """
    from attnprobe.tasks.summary import summarise

    if figure is not None:
        if figure.suffix.lower() != ".png":
            raise ConfigError(f"--figure {figure} is not a PNG file's name", hint="let it end in .png")
        check_outputs([("--figure", "figure", [figure])])
    task = make_task(name, settings or [])
    data = task.load(data_dir)
    summary = summarise(data)
    if figure is not None:
        from attnprobe.report.data_sheet import draw_sheet

        size = "" if data.spec.grid is None else f", {' x '.join(map(str, data.spec.grid))} pixels"
        draw_sheet(data, figure, title_of(task, name) + size)
    if json:
        print_json({"task": name, **summary, "figure": None if figure is None else str(figure)})
    elif not quiet:
        show_summary(name, summary)
        if figure is not None:
            say(f"figure: {figure}")
        show_next(name, summary, settings or [])


def make_task(name: str, settings: list[str]) -> "Task":
    from attnprobe.config import build, did_you_mean, override
    from attnprobe.tasks import TASKS

    if name not in TASKS:
        raise ConfigError(f"there is no task {name!r}", hint=did_you_mean(name, TASKS))
    # As in training, settings may be written with their section: task.n_train=100 or n_train=100.
    return build(TASKS[name], override({}, [setting.strip().removeprefix("task.") for setting in settings]), "task")


def title_of(task: "Task", name: str) -> str:
    """What a figure is called: the file's own name, where the task is only the kind of file."""
    from attnprobe.tasks.own.source import OwnData

    return task.path.name if isinstance(task, OwnData) and task.path is not None else name


def resolve(names: list[str], *, all_sources: bool) -> list[str]:
    """Sources by their own names or by the tasks they serve; of several versions of one the first, or all."""
    from attnprobe.config import did_you_mean
    from attnprobe.tasks import TASKS
    from attnprobe.tasks.own import OWN
    from attnprobe.tasks.sources.catalogue import PUBLISHED_SOURCES, SOURCES, TASK_SOURCES

    found: list[str] = []
    for name in names:
        if name in PUBLISHED_SOURCES:
            found += PUBLISHED_SOURCES[name]
        elif name in TASK_SOURCES:
            versions = all_sources or name == "bidmc"  # its three sources are three targets, not versions of one
            found += TASK_SOURCES[name] if versions else TASK_SOURCES[name][:1]
        elif name in SOURCES:
            found.append(name)
        elif name in OWN:
            raise ConfigError(f"{name} reads your own files", hint=f"try `attnprobe data describe {name}`")
        elif name in TASKS:
            raise ConfigError(f"{name} needs no download", hint=f"run `attnprobe data generate {name}`")
        else:
            raise ConfigError(
                f"there is no data set {name!r}", hint=did_you_mean(name, {*SOURCES, *TASK_SOURCES, *PUBLISHED_SOURCES})
            )
    return list(dict.fromkeys(found))
