"""attnprobe demo: the whole story on textures, from two training runs to a verdict with figures."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnprobe.cli.screen.output import CHECK_FAILED, Device, Json, Quiet, print_json, print_table, say
from attnprobe.cli.train.command import Settings
from attnprobe.cli.train.runs import train_all
from attnprobe.cli.train.seeds import parse_seeds
from attnprobe.errors import AttnprobeError
from attnprobe.files.outputs import check_outputs, figure_files
from attnprobe.files.ownership import held

if TYPE_CHECKING:
    from attnprobe.probes.proximity.probe import Proximity
    from attnprobe.run import RunConfig

FIGURES = ("learning_curves", "proximity_profiles", "proximity_maps")
SUMMARY = "summary.json"
AGAIN = "the same command"  # continues what was interrupted
ARMS = {"scratch": "from scratch", "pretrained": "self-pretrained"}
# The best of the baseline's own grid; the preset's rate is that of the other arm.
SCRATCH_RATE = "finetune.optimizer.lr=1e-2"

Result = dict[str, Any]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for runs, tables and figures.")] = Path("demo"),
    seeds: Annotated[
        str, typer.Option(help="A number (5 = 0..4) or a list (0,3,7). One takes about a minute on 2 cores.")
    ] = "1",
    settings: Settings = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train from scratch and self-pretrained, measure proximity bias in both, check the theory, draw it all.

    Examples:

        attnprobe demo

        attnprobe demo --seeds 5 --out demo5

        attnprobe demo -s pretrain.epochs=50 --out demo50

    Runs that are finished in the folder already are used again, interrupted ones continued.
    """
    silent = quiet or json
    figures = [file for name in FIGURES for file in figure_files(out / name)]
    check_outputs([("--out", "figure", figures), ("--out", "demo summary", [out / SUMMARY])])
    numbers = parse_seeds(seeds)
    for arm in ARMS:
        arm_configs(arm, numbers, settings or [])  # a mistake is said before the folder is marked
    with held(out, "demo"):
        summary = tell(out, numbers, device, silent, settings or [])
    if json:
        print_json(summary)
    elif not quiet:
        show(out, summary)
    if not summary["theory"]["passed"]:
        raise typer.Exit(CHECK_FAILED)


def tell(out: Path, numbers: list[int], device: str, silent: bool, settings: list[str]) -> dict[str, Any]:
    """Train, measure, check, draw; returns what summary.json holds."""
    results = train_arms(numbers, out, device, silent, settings)
    say("measuring proximity bias", quiet=silent)
    measured = measure_runs(results, device)
    say("checking the theory", quiet=silent)
    summary = {
        "accuracy": accuracy_table(results),
        "gain": gain_of_pretraining(results),
        "proximity": [row for label, proximity in measured.items() for row in proximity_rows(label, proximity)],
        "theory": theory_verdict(),
        "figures": [str(path) for path in draw(out, results, measured)],
        "runs": {arm: [r["run_dir"] for r in runs] for arm, runs in results.items()},
    }
    save_summary(out, summary)
    return summary


def train_arms(seeds: list[int], out: Path, device: str, quiet: bool, settings: list[str]) -> dict[str, list[Result]]:
    """The runs of both arms side by side; finished ones are taken as they are, interrupted ones continued."""
    runs = {
        (arm, config.seed): (config, out / "runs" / f"{arm}-s{config.seed}", f"{name}, seed {config.seed}")
        for arm, name in ARMS.items()
        for config in arm_configs(arm, seeds, settings)
    }
    say(f"training {' and '.join(ARMS.values())}", quiet=quiet)
    # The longer ones first: the shorter ones fill what remains of the time.
    order = sorted(runs, key=lambda key: len(runs[key][0].phases()), reverse=True)
    configs, folders, names = (list(column) for column in zip(*(runs[key] for key in order), strict=True))
    try:
        found = train_all(configs, folders, device, None, True, False, names=names, quiet=quiet, again=AGAIN)
    except AttnprobeError as error:
        error.hint = error.hint.replace(f"{AGAIN} and --resume", AGAIN)  # options that the demo does not have
        if "--overwrite" in error.hint:
            error.hint = f"move that run out of {out / 'runs'}, or choose another --out"
        raise
    results = dict(zip(order, found, strict=True))
    return {arm: [results[arm, seed] for seed in seeds] for arm in ARMS}


def arm_configs(arm: str, seeds: list[int], settings: list[str]) -> "list[RunConfig]":
    from attnprobe import run
    from attnprobe.config import environment_assignments
    from attnprobe.launch.arms import settings_of, with_seeds

    own = [SCRATCH_RATE] if arm == "scratch" else []
    assignments = [*own, *environment_assignments(), *settings]
    return with_seeds(settings_of(run.DEFAULT_PRESET, assignments, pretrain=arm != "scratch"), seeds)


def measure_runs(results: dict[str, list[Result]], device: str) -> "dict[str, Proximity]":
    """Proximity of the first seed's models at every stage, by label."""
    from attnprobe.opening import Opener
    from attnprobe.probes.proximity.probe import measure

    spt, scratch = results["pretrained"][0]["checkpoints"], results["scratch"][0]["checkpoints"]
    stages = {
        "initial": spt["init"],
        "from scratch": scratch["finetuned"],
        "pretrained": spt["pretrained"],
        "finetuned": spt["finetuned"],
    }
    opener, measured = Opener(device=device), {}
    for label, path in stages.items():
        opened = opener.open(Path(path), label)
        measured[label] = measure(opened.subject(), n=500, null="init", draws=19, seed=0)  # a second each
    return measured


def accuracy_table(results: dict[str, list[Result]]) -> list[dict[str, Any]]:
    from attnprobe.launch.gains import means

    return [{"arm": ARMS[arm], "n": len(runs), **means(runs)} for arm, runs in results.items()]


def gain_of_pretraining(results: dict[str, list[Result]]) -> dict[str, Any]:
    """Test accuracy gained by self-pretraining, paired by seed."""
    from attnprobe.launch.gains import differences, gain

    arms = results["pretrained"], results["scratch"]
    found = dataclasses.asdict(gain(*arms))
    return found | {"per_seed": [round(difference, 4) for difference in differences(*arms).values()]}


def proximity_rows(label: str, proximity: "Proximity") -> list[dict[str, Any]]:
    """Of every head, and of the largest with its p-value and what that was drawn from."""
    from attnprobe.probes.rows import rows_to_records

    rows = [row for row in proximity.rows if row.quantity.startswith("proximity_bias")]
    return rows_to_records(rows, label, "null")


def theory_verdict() -> dict[str, Any]:
    from attnprobe.cli.theory import rows_for

    rows = rows_for(None, 64, 5, 0, quiet=True)
    failed = [row.quantity for row in rows if not row.passed]
    return {"passed": not failed, "rows": len(rows), "failed": failed}


def draw(out: Path, results: dict[str, list[Result]], measured: "dict[str, Proximity]") -> list[Path]:
    from attnprobe.report.figures import draw_offset_profiles, draw_proximity_maps
    from attnprobe.report.training_figures import draw_learning_curves

    runs = {ARMS[arm]: [Path(r["run_dir"]) for r in found] for arm, found in results.items()}
    curves, profiles, maps = (out / name for name in FIGURES)
    files = draw_learning_curves(runs, curves)
    files += draw_offset_profiles(measured, profiles)
    return files + draw_proximity_maps(measured, maps)


def save_summary(out: Path, summary: dict[str, Any]) -> None:
    from attnprobe.files import to_json, write_text

    write_text(out / SUMMARY, to_json(summary))


def show(out: Path, summary: dict[str, Any]) -> None:
    rows = []
    for r in summary["accuracy"]:
        accuracies = [f"{r[f'{s}_accuracy']:.3f}" for s in ("train", "validation", "test")]
        rows.append([r["arm"], str(r["n"]), *accuracies, f"{r['seconds']:.0f}"])
    print_table("accuracy on textures", ["arm", "seeds", "train", "validation", "test", "seconds"], rows)
    gained = summary["gain"]
    interval = "" if gained["n"] < 2 else f", 95 % interval {100 * gained['low']:.1f} to {100 * gained['high']:.1f}"
    say(
        f"self-pretraining gains {100 * gained['estimate']:.1f} points of test accuracy (n = {gained['n']}{interval})\n"
    )
    show_proximity(summary["proximity"])
    theory = summary["theory"]
    say(f"theory: {theory['rows'] - len(theory['failed'])} of {theory['rows']} rows pass")
    say(f"figures and summary.json: {out}")


def show_proximity(rows: list[dict[str, Any]]) -> None:
    of_heads = [r for r in rows if r["head"] is not None]
    largest = {r["checkpoint"]: r["p_value"] for r in rows if r["head"] is None}  # that of the model comes last
    heads = sorted({(r["layer"], r["head"]) for r in of_heads})
    lines: dict[str, dict[tuple[int, int], str]] = {}
    for r in of_heads:
        lines.setdefault(r["checkpoint"], {})[r["layer"], r["head"]] = (
            f"{r['estimate']:+.2f} [{r['low']:+.2f}, {r['high']:+.2f}]"
        )
    print_table(
        "proximity bias (sd of scores; 95 % interval over sequences) of the first seed",
        ["model", *(f"layer {layer} head {head}" for layer, head in heads)],
        [[label, *(found[h] for h in heads)] for label, found in lines.items()],
    )
    said = (f"{label} {'?' if p is None else f'{p:.2f}'}" for label, p in largest.items())
    say(f"largest head against W_Q and W_K drawn anew, p: {', '.join(said)} (0.05 is the least that 19 draws give)")
