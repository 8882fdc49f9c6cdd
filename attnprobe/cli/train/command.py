"""attnprobe train: one run, or one per seed."""

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attnprobe.cli.completion import complete_presets, complete_run_setting
from attnprobe.cli.screen.output import DataDir, Device, Json, Quiet, finite, print_json
from attnprobe.cli.train.output import show_plan, show_results
from attnprobe.cli.train.runs import train_all
from attnprobe.cli.train.seeds import chosen_seeds
from attnprobe.errors import ConfigError

if TYPE_CHECKING:
    from attnprobe.run import RunConfig

Mode = Literal["auto", "eager", "compiled", "graph"]


class LogName(StrEnum):
    csv = "csv"
    tensorboard = "tensorboard"
    wandb = "wandb"


Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Change a setting, e.g. -s finetune.epochs=20. Repeatable.",
        autocompletion=complete_run_setting,
    ),
]


def train(
    preset: Annotated[
        str,
        typer.Argument(
            help="A preset's name (see attnprobe presets) or a .toml file.", autocompletion=complete_presets
        ),
    ] = "textures",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run directory; with --seeds the folder of all.", show_default="runs/<preset>[-<file>]-s<seed>"
        ),
    ] = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of initialisation, order and masks.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Several runs: a number (5 = 0..4) or a list (0,3,7).")] = None,
    together: Annotated[
        bool,
        typer.Option(
            "--together", help="Train all seeds as one stacked model instead of side by side: equal up to rounding."
        ),
    ] = False,
    no_pretrain: Annotated[bool, typer.Option("--no-pretrain", help="Train from scratch.")] = False,
    no_finetune: Annotated[bool, typer.Option("--no-finetune", help="Stop after self-pretraining.")] = False,
    pretrained: Annotated[
        Path | None, typer.Option(help="Finetune from this checkpoint instead of pretraining.", show_default=False)
    ] = None,
    probe_every: Annotated[
        float | None,
        typer.Option(
            min=1.01,
            callback=finite,
            help="Probe at steps 0, 1 and each time their number grew by this factor (2: 1, 2, 4 ...).",
        ),
    ] = None,
    probe_sequences: Annotated[int, typer.Option(min=8, help="Validation sequences for --probe-every.")] = 32,
    mode: Annotated[
        Mode | None, typer.Option(help="How updates are carried out (engine.mode).", show_default="as the preset says")
    ] = None,
    engine: Annotated[Mode | None, typer.Option(help="The earlier name of --mode.", hidden=True)] = None,
    precision: Annotated[
        Literal["float32", "tf32", "bfloat16"] | None,
        typer.Option(
            help="Of matrix products (engine.precision); parameters stay float32. tf32 needs a GPU.",
            show_default="as the preset says",
        ),
    ] = None,
    on_nan: Annotated[
        Literal["stop", "skip", "restart"] | None,
        typer.Option(
            help="If a loss is no finite number (engine.on_nan): stop, skip such updates, or restart from the last "
            "save with half the learning rate.",
            show_default="stop",
        ),
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Only kernels that repeat their bits (engine.deterministic).")
    ] = False,
    log: Annotated[
        list[LogName] | None,
        typer.Option(
            help="Also write metrics for other programs, into the run's folder. Repeatable.", show_default=False
        ),
    ] = None,
    device: Device = "auto",
    data_dir: DataDir = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run exactly.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run, which is kept until the new one is finished.")
    ] = False,
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

        attnprobe train --seeds 5 --together

        attnprobe train --probe-every 2

        attnprobe train --log tensorboard --log csv

    Settings come from the preset or file, then from $ATTNPROBE_SET (assignments separated by blanks), then from -s.
    Ctrl-C saves; the same command with --resume goes on exactly where it stopped.
    """
    logs = [name.value for name in log or []]
    if logs:
        from attnprobe.training.logs import check_logs

        check_logs(logs)
    settings = [*(settings or []), *engine_settings(mode or engine, precision, deterministic, on_nan)]
    phases = {"pretrain": not no_pretrain, "finetune": not no_finetune, "pretrained": pretrained}
    configs = load_configs(preset, settings, seed, seeds, **phases)
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other", hint="leave one of them out")
    folders = run_folders(preset, configs, out, several=seeds is not None)
    if dry_run:
        options = {"data_dir": data_dir, "device": device, "resume": resume, "overwrite": overwrite}
        show_plan(configs, folders, json=json, quiet=quiet, **options)
        return
    watches = None
    if probe_every is not None:
        from attnprobe.launch.trajectory import writer_for

        watches = [
            writer_for(config, folder, factor=probe_every, sequences=probe_sequences)
            for config, folder in zip(configs, folders, strict=True)
        ]
    results = train_all(
        configs,
        folders,
        device,
        data_dir,
        resume,
        overwrite,
        watches=watches,
        together=together,
        log=logs,
        quiet=quiet or json,
    )
    if not results:  # a process that only helped another one
        return
    if json:
        print_json(results[0] if seeds is None else {"runs": results})
    elif not quiet:
        show_results(results)


def engine_settings(
    mode: str | None, precision: str | None, deterministic: bool, on_nan: str | None = None
) -> list[str]:
    """The assignments that the options of the engine stand for."""
    named = {"mode": mode, "precision": precision, "deterministic": "true" if deterministic else None}
    named |= {"on_nan": on_nan}
    return [f"engine.{key}={value}" for key, value in named.items() if value is not None]


def load_configs(
    preset: str, settings: list[str], seed: int | None, seeds: str | None, **phases: Any
) -> "list[RunConfig]":
    """The settings of every run that the command line asks for, one per seed. phases: as of ``settings_of``."""
    from attnprobe.config import environment_assignments
    from attnprobe.launch.arms import settings_of, with_seeds

    table = settings_of(preset, [*environment_assignments(), *settings], **phases)
    return with_seeds(table, chosen_seeds(seed, seeds, table.get("seed", 0)))


def run_folders(preset: str, configs: "list[RunConfig]", out: Path | None, *, several: bool) -> list[Path]:
    """Where the runs go. Several seeds share a folder; a run never goes where the one it starts from is.

    several: whether --seeds was given.
    """
    source = configs[0].pretrained
    arm = "-continued" if source else "" if configs[0].pretrain else "-scratch"
    while True:
        name = f"{Path(preset).stem}{own_files(preset, configs[0])}{arm}"
        group = out or Path("runs") / name
        if several:
            folders = [group / f"s{config.seed}" for config in configs]
        else:
            folders = [out or Path("runs") / f"{name}-s{configs[0].seed}"]
        taken = source is not None and any(source.resolve().is_relative_to(f.resolve()) for f in folders)
        if out is not None or not taken:
            return folders
        arm += "-continued"


def own_files(preset: str, config: "RunConfig") -> str:
    """Of a person's own files their name, which tells runs of one preset apart; a settings file has its own."""
    from attnprobe.tasks.own.source import OwnData

    path = config.task.path if isinstance(config.task, OwnData) and not preset.endswith(".toml") else None
    name = "" if path is None else re.sub(r"[^\w.-]+", "-", path.stem).strip("-.")[:40]
    return f"-{name}" if name else ""
