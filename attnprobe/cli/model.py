"""attnprobe model: what a model can be made of, and what the model of a run is made of and costs."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from attnprobe.cli.completion import complete_presets
from attnprobe.cli.screen.output import DataDir, Device, Json, print_json, print_table, say
from attnprobe.cli.train.command import Settings, load_configs
from attnprobe.cli.train.output import span
from attnprobe.errors import ConfigError

model_app = typer.Typer(name="model", help="What models are made of, and what they cost.", no_args_is_help=True)


@model_app.command("list")
def list_choices(
    setting: Annotated[
        str | None, typer.Argument(help="Only one of them: mixer, positions, norm ...", show_default="all")
    ] = None,
    json: Json = False,
) -> None:
    """List what can be put into [model]: mixers, positions, norms and so on, one line each, with its source.

    Examples:

        attnprobe model list

        attnprobe model list mixer --json
    """
    from attnprobe.config import did_you_mean
    from attnprobe.settings.model_choices import choices

    found = choices()
    if setting is not None:
        known = dict.fromkeys(choice.setting for choice in found)
        setting = setting.removeprefix("model.")
        if setting not in known:
            raise ConfigError(f"{setting!r} is nothing to choose in [model]", hint=did_you_mean(setting, known))
        found = [choice for choice in found if choice.setting == setting]
    if json:
        print_json({"choices": [dataclasses.asdict(choice) for choice in found]})
        return
    rows = [[c.setting, c.name + (" *" if c.default else ""), c.what, c.source] for c in found]
    print_table("model (* is the default)", ["setting", "value", "what it is", "source"], rows, numeric_from=4, keys=2)
    say("To change one: attnprobe train -s model.SETTING=VALUE. Sizes and rates: attnprobe settings model")


@model_app.command()
def summary(
    preset: Annotated[
        str,
        typer.Argument(
            help="A preset's name (see attnprobe presets) or a .toml file.", autocompletion=complete_presets
        ),
    ],
    settings: Settings = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Time some steps, for a few seconds a phase.")
    ] = True,
    device: Device = "auto",
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Show a run's model: parameters by part, operations, memory of the activations, seconds per step on this machine.

    Examples:

        attnprobe model summary textures

        attnprobe model summary pathx-s4 --no-measure -s model.mixer.states=32 --json

    Operations are those of a forward pass; a step takes about three times as many. Memory and time are the estimates
    that train --dry-run gives. What is too large for this machine is not timed.
    """
    [config] = load_configs(preset, settings or [], None, None)
    from attnprobe.launch.model_summary import summarise

    found = summarise(config, data_dir=data_dir, device=device, measure=measure)
    if json:
        print_json(found)
    else:
        show(preset, found)


def show(preset: str, found: dict[str, Any]) -> None:
    rows = [
        [part["part"], in_words(part["blocks"]), f"{part['each']:,}", f"{part['parameters']:,}"]
        for part in found["parts"]
    ]
    title = f"{preset}: {found['parameters']:,} parameters"
    print_table(title, ["part", "blocks", "of one block", "parameters"], rows, numeric_from=2, keys=2)
    rows = []
    for name, numbers in found["phases"].items():
        step = numbers["seconds_per_step"]
        cells = [f"{numbers['batch_size']:,}", f"{numbers['length']:,}", f"{numbers['operations_per_token']:,.4g}"]
        cells += [f"{numbers[size] / 2**20:,.4g}" for size in ("activations", "memory")]
        rows.append([name, *cells, "?" if step is None else span(step)])
    print_table(
        f"a batch of each phase on {found['device']}: operations of a forward pass per token, memory in MiB",
        ["phase", "batch", "length", "operations", "activations", "all memory", "a step"],
        rows,
    )
    for name, numbers in found["phases"].items():
        if numbers["note"]:
            say(f"{name}: {numbers['note']}")


def in_words(blocks: Sequence[int]) -> str:
    """Numbers that follow each other as first-last."""
    together = len(blocks) > 1 and list(blocks) == list(range(blocks[0], blocks[-1] + 1))
    return f"{blocks[0]}-{blocks[-1]}" if together else ", ".join(map(str, blocks))
