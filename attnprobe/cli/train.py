"""attnprobe train: one run, or one per seed."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnprobe.cli.output import DataDir, Device, Json, Quiet, print_json, say
from attnprobe.cli.train_output import show_plan, show_results
from attnprobe.cli.workers import cores, train_in_parallel
from attnprobe.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from attnprobe.run import RunConfig
    from attnprobe.training.execute import Watch

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a setting, e.g. -s finetune.epochs=20. Repeatable."),
]


def train(
    preset: Annotated[
        str, typer.Argument(help="A preset's name (see attnprobe presets) or a .toml file.")
    ] = "textures",
    out: Annotated[Path | None, typer.Option(help="Run directory.", show_default="runs/<preset>-s<seed>")] = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of initialisation, order and masks.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Several runs: a number (5 = 0..4) or a list (0,3,7).")] = None,
    no_pretrain: Annotated[bool, typer.Option("--no-pretrain", help="Train from scratch.")] = False,
    no_finetune: Annotated[bool, typer.Option("--no-finetune", help="Stop after self-pretraining.")] = False,
    pretrained: Annotated[
        Path | None, typer.Option(help="Finetune from this checkpoint instead of pretraining.", show_default=False)
    ] = None,
    probe_every: Annotated[
        float | None,
        typer.Option(
            min=1.01, help="Probe at steps 0, 1 and each time their number grew by this factor (2: 1, 2, 4 ...)."
        ),
    ] = None,
    probe_sequences: Annotated[int, typer.Option(min=8, help="Validation sequences for --probe-every.")] = 32,
    device: Device = "auto",
    data_dir: DataDir = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run exactly.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in the same folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be trained, and stop.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model: self-pretrain on a task's inputs, then finetune on its labels.

    Examples:

        attnprobe train

        attnprobe train --no-pretrain

        attnprobe train textures -s finetune.transfer=qk -s finetune.epochs=50

        attnprobe train fashion-mnist --seed 3 --out runs/clothes

        attnprobe train mine.toml --seeds 5 --json

        torchrun --nproc-per-node 2 -m attnprobe train mine.toml

        attnprobe train --probe-every 2

    Settings come from the preset or file, then from $ATTNPROBE_SET (assignments separated by blanks), then from -s.
    Ctrl-C saves; the same command with --resume goes on exactly where it stopped.
    """
    configs = load_configs(preset, settings or [], seed, seeds, no_pretrain, no_finetune, pretrained)
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other")
    folders = run_folders(preset, configs, out)
    if dry_run:
        show_plan(configs, folders, data_dir, json)
        return
    watches = None
    if probe_every is not None:
        from attnprobe.cli.watching import TelemetryWriter

        watches = [
            TelemetryWriter(config=config, folder=folder, factor=probe_every, sequences=probe_sequences)
            for config, folder in zip(configs, folders, strict=True)
        ]
    results = train_all(configs, folders, device, data_dir, resume, overwrite, watches=watches, quiet=quiet or json)
    if not results:  # a process that only helped another one
        return
    if json:
        print_json(results[0] if seeds is None else {"runs": results})
    elif not quiet:
        show_results(results)


def load_configs(
    preset: str,
    settings: list[str],
    seed: int | None,
    seeds: str | None,
    no_pretrain: bool,
    no_finetune: bool,
    pretrained: Path | None,
) -> "list[RunConfig]":
    """The settings of every run that the command line asks for, one per seed."""
    from attnprobe import run
    from attnprobe.config import environment_assignments, override

    if seed is not None and seeds is not None:
        raise ConfigError("--seed and --seeds exclude each other")
    table = override(run.read_table(preset), [*environment_assignments(), *settings])
    if no_pretrain or pretrained is not None:
        table.pop("pretrain", None)
    if no_finetune:
        table.pop("finetune", None)
    if pretrained is not None:
        table["pretrained"] = str(pretrained)
    wanted = parse_seeds(seeds) if seeds is not None else [table.get("seed", 0) if seed is None else seed]
    return [run.from_table(table | {"seed": s}) for s in wanted]


def parse_seeds(text: str) -> list[int]:
    """ "5" -> 0..4, "0,3,7" -> these."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    seeds = list(range(numbers[0])) if len(numbers) == 1 and "," not in text else numbers
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {text!r} is no list of different seeds", hint="write --seeds 5 or --seeds 0,3,7")
    return seeds


def run_folders(preset: str, configs: "list[RunConfig]", out: Path | None) -> list[Path]:
    if out is not None:
        return [out] if len(configs) == 1 else [out / f"s{config.seed}" for config in configs]
    arm = "" if configs[0].pretrain or configs[0].pretrained else "-scratch"
    return [Path("runs") / f"{Path(preset).stem}{arm}-s{config.seed}" for config in configs]


def train_all(
    configs: "list[RunConfig]",
    folders: list[Path],
    device: str,
    data_dir: Path | None,
    resume: bool,
    overwrite: bool,
    *,
    watches: "Sequence[Watch] | None" = None,
    quiet: bool,
) -> list[dict[str, Any]]:
    """Run with progress on stderr; a first Ctrl-C stops between two steps and saves, then exits with 130."""
    from attnprobe.training import distributed
    from attnprobe.training.execute import choose_device
    from attnprobe.training.loop import Interrupted

    shared = distributed.started_by_torchrun()
    if shared and len(configs) > 1:
        raise ConfigError("torchrun trains one run at a time", hint="leave out --seeds, or leave out torchrun")
    chosen = choose_device(distributed.local_device(device) if shared else device)
    watching = watches or [None] * len(configs)
    choices: dict[str, Any] = {"data_dir": data_dir, "resume": resume, "overwrite": overwrite, "quiet": quiet}
    with stop_on_signal() as stop:
        try:
            if shared:
                return train_shared(configs[0], folders[0], chosen, stop, watch=watching[0], **choices)
            workers = min(len(configs), cores())
            if chosen.type == "cpu" and workers > 1:
                say(f"{len(configs)} runs, {workers} at a time", quiet=quiet)
                return train_in_parallel(configs, folders, watching, workers=workers, stop=stop, **choices)
            return [
                carry_out(config, folder, chosen, stop, watch=watch, **choices)
                for config, folder, watch in zip(configs, folders, watching, strict=True)
            ]
        except Interrupted:
            where = folders[0] if len(folders) == 1 else folders[0].parent
            say(f"interrupted; saved in {where}. Go on with the same command and --resume.")
            raise typer.Exit(130) from None


def carry_out(
    config: "RunConfig",
    folder: Path,
    device: "torch.device",
    stop: threading.Event,
    *,
    data_dir: Path | None,
    resume: bool,
    overwrite: bool,
    watch: "Watch | None",
    quiet: bool,
) -> dict[str, Any]:
    from attnprobe.cli.progress import TrainingProgress
    from attnprobe.training.execute import execute

    with TrainingProgress(quiet=quiet) as monitor:
        return execute(
            config, folder, device=device, monitor=monitor, should_stop=stop.is_set, data_dir=data_dir, watch=watch,
            resume=resume, overwrite=overwrite,
        )  # fmt: skip


def train_shared(
    config: "RunConfig",
    folder: Path,
    device: "torch.device",
    stop: threading.Event,
    *,
    data_dir: Path | None,
    resume: bool,
    overwrite: bool,
    watch: "Watch | None",
    quiet: bool,
) -> list[dict[str, Any]]:
    """One run on all processes of torchrun; only the first one speaks, writes and returns a result."""
    from attnprobe.training import distributed

    with distributed.join(device) as rank, distributed.own_folder(rank, folder) as own:
        helper = rank > 0
        result = carry_out(
            config, own, device, stop, watch=None if helper else watch, data_dir=data_dir, resume=resume,
            overwrite=overwrite, quiet=quiet or helper,
        )  # fmt: skip
    return [] if helper else [result]


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one ends the process as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: FrameType | None) -> None:
        stop.set()
        for known, handler in earlier.items():
            signal.signal(known, handler)

    for number in earlier:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
