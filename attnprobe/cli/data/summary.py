"""What `attnprobe data` shows of a data set."""

import shlex
from typing import Any

from attnprobe.cli.screen.output import print_table, say

MOST_NAMES = 10  # classes whose names stand beside their numbers of samples


def show_summary(name: str, summary: dict[str, Any]) -> None:
    names = summary["class_names"] if len(summary["class_names"]) <= MOST_NAMES else []
    rows = []
    for split, facts in summary["splits"].items():
        shape = " x ".join(map(str, facts["shape"]))
        balance = facts.get("class_counts") or [f"{value:.4g}" for value in facts["labels"].values()]
        texts = list(map(str, balance))
        if names:
            texts = [f"{class_name}: {count}" for class_name, count in zip(names, texts, strict=True)]
        lengths = [f"{facts['lengths'][key]:g}" for key in ("min", "median", "max")] if "lengths" in facts else ["-"]
        rows.append([split, shape, facts["type"], (", " if names else " ").join(texts), " / ".join(lengths)])
    last = "label quartiles" if summary["classes"] is None else "samples of each class"
    columns = ["split", "shape", "type", last, "length min / median / max"]
    print_table(f"{name}: {summary['kind']}", columns, rows, numeric_from=5)
    lengths = summary["splits"]["train"].get("lengths")
    if lengths is not None:
        show_histogram(lengths)
    show_facts(summary)


def show_facts(summary: dict[str, Any]) -> None:
    """Lines below the tables."""
    for remark in summary["remarks"]:
        say(remark)
    if summary["class_names"] != [str(i) for i in range(len(summary["class_names"]))]:
        say(f"classes: {', '.join(f'{i} = {name}' for i, name in enumerate(summary['class_names']))}")
    if summary["remarks"]:
        grid, vocabulary = summary["grid"], summary["vocabulary"]
        known = {
            "length": summary["length"],
            "grid": grid and " x ".join(map(str, grid)),
            "channels": summary["channels"],
            "vocabulary": vocabulary and f"{vocabulary} ids, those of padding and hidden positions included",
        }
        say(", ".join(f"{what} {value}" for what, value in known.items() if value is not None))
    for key, value in summary["notes"].items():
        say(f"{key}: {value:.4g}")
    say(f"fingerprint: {summary['fingerprint']}")


def show_next(name: str, summary: dict[str, Any], settings: list[str]) -> None:
    """How a model is trained on data of one's own that were understood."""
    from attnprobe.tasks.own import OWN

    if name in OWN:
        preset = "arrays-tokens" if name == "arrays" and summary["vocabulary"] is not None else name
        keys = [f"-s {shlex.quote('task.' + setting.strip().removeprefix('task.'))}" for setting in settings]
        say(f"next: attnprobe train {preset} {' '.join(keys)}")


def show_histogram(lengths: dict[str, Any]) -> None:
    """Lengths of the training sequences as bars of text."""
    most = max(lengths["counts"])
    rows = []
    for low, high, count in zip(lengths["edges"], lengths["edges"][1:], lengths["counts"], strict=False):
        rows.append([f"{low:g} to {high:g}", str(count), "#" * round(40 * count / most)])
    print_table("lengths (training)", ["positions", "samples", ""], rows, numeric_from=3)
