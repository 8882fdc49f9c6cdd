"""experiments/PRESETS.md: every published setting beside ours, from published_*.csv and the presets themselves.

``python -m tests.tasks.presets.table`` writes the file anew; test_table.py compares it. Each line of a CSV is
one value as it is printed somewhere: preset, setting, value, where it stands, and, if ours is another one, why.
"""

import csv
import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from attnprobe import presets, published, run
from attnprobe.config import Table
from attnprobe.models import make_model
from attnprobe.tasks import Spec

VALUES = sorted(Path(__file__).parent.glob("published_*.csv"))
OTHERS = ("LRA:", "MEGA:")  # how sources begin that are not Amos et al.
TABLE = Path(__file__).parents[3] / "experiments" / "PRESETS.md"

HEAD = """# Presets against what was published

Written by `python -m tests.tasks.presets.table`; a test fails if a preset, a value or this file changes alone.

Sources: Amos et al. 2023 (arXiv 2310.02980) and the configuration files of their code
(github.com/IdoAmos/not-from-scratch, commit f919137, `configs/experiment/` where no other folder is named), which is
where names ending in `.yaml` lead; Coser et al. 2026, whose code is that of Amos et al.; Tay et al. 2021 (Long Range
Arena, arXiv 2011.04006), whose code, github.com/google-research/long-range-arena at commit cd31e5c, is where names
after "LRA:" lead (below `lra_benchmarks/`); Ma et al. 2023 (MEGA, arXiv 2209.10655), whose code,
github.com/facebookresearch/mega at commit aeaa4b4, is where names after "MEGA:" lead. A setting in brackets is nothing
that can be set here. From scratch is the same preset with `--no-pretrain`; where the papers give other rates for it,
the preset's comment does.

Of the sizes of Table 9 in Amos et al. only the one of 3M is known. Of the efficient models of Tay et al. those without
a mixer here have no preset (Sparse Transformer, Sinkhorn, Synthesizer), and none has one for PathX, which none of them
learned and for which their code has files of the Transformer alone. Depth, data source, frozen
layers, transferred queries and keys (Coser et al.), shares of the data and compute-tied runs (Amos et al.) are presets
with `-s model.layers`, `pretrain.task`, `finetune.freeze`, `finetune.transfer`, `task.fraction` and epochs.
"""

SWITCHES = """
## What `published = true` turns on

The presets above keep the clean defaults. With `-s published=true` every setting below becomes as in the published
code, unless it is set explicitly; `attnprobe train --dry-run` and the manifest of a run list them.

| setting | default | published | what the published code does | presets |
|---|---|---|---|---|
"""

LEFT_OUT = """
Not reproduced: validation twice an epoch while reconstructing images (Image, sCIFAR, Pathfinder, PathX), overwriting
the kept epoch within epoch 0, means of batch means instead of means over all that is scored, TF32
(`-s engine.precision=tf32` on a GPU), the choice of the *worst* epoch when Speech Commands is reconstructed (their
monitor takes the maximum of an error). `published = true` is of no meaning for the presets of Tay et al. and Ma et al.
"""


@dataclasses.dataclass(frozen=True)
class Value:
    preset: str
    setting: str
    published: Any
    source: str
    why: str  # why ours is another one; empty if it is the same


def read_values() -> list[Value]:
    rows: list[dict[str, str]] = []
    for path in VALUES:
        with path.open(newline="", encoding="utf-8") as file:
            rows += csv.DictReader(file)
    return [Value(r["preset"], r["setting"], parsed(r["published"]), r["source"], r["why"]) for r in rows]


def parsed(text: str) -> Any:
    """A value as TOML has it; a bare word is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def ours(table: Table, setting: str) -> Any:
    if setting == "(backbone parameters)":
        return backbone_parameters(table)
    if setting.startswith("("):
        return None
    value: Any = table
    for part in setting.split("."):
        value = value[part]
    return value


def backbone_parameters(table: Table) -> str:
    """Of blocks and last norm, in millions: what does not depend on the data."""
    config = run.from_table(table).model
    model = make_model(config, Spec(length=2, classes=2), "values", seed=0)
    backbone = [p.numel() for name, p in model.named_parameters() if name.startswith(("blocks.", "norm."))]
    return f"{sum(backbone) / 1e6:.0f}M"


def settings_of(preset: str) -> Table:
    return run.to_table(run.from_table(presets.read_table(preset)))


def shown(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value).lower()


def render() -> str:
    parts = [HEAD]
    by_preset: dict[str, list[Value]] = {}
    for value in read_values():
        by_preset.setdefault(value.preset, []).append(value)
    for preset, values in by_preset.items():
        table = settings_of(preset)
        parts.append(f"\n## {preset}\n\n| setting | published | ours | source | agrees |\n|---|---|---|---|---|\n")
        for value in values:
            own = ours(table, value.setting)
            agrees = "yes" if own == value.published else f"no: {value.why}"
            cells = (value.setting, shown(value.published), shown(own), value.source, agrees)
            parts.append(f"| {' | '.join(cells)} |\n")
    of_amos = [name for name, values in by_preset.items() if not any(v.source.startswith(OTHERS) for v in values)]
    return "".join([*parts, SWITCHES, *switch_rows(of_amos), LEFT_OUT])


def switch_rows(names: list[str]) -> list[str]:
    """One line per switch, with the presets in which it applies."""
    found: dict[tuple[str, str, str], list[str]] = {}
    defaults: dict[str, Any] = {}
    for name in names:
        clean = settings_of(name)
        for switch in published.switches(presets.read_table(name) | {"published": True}):
            defaults[switch.key] = ours(clean, switch.key)
            found.setdefault((switch.key, shown(switch.value), switch.why), []).append(name)
    lines = []
    for (key, value, why), where in found.items():
        who = "all" if len(where) == len(names) else ", ".join(where)
        lines.append(f"| {key} | {shown(defaults[key])} | {value} | {why} | {who} |\n")
    return lines


if __name__ == "__main__":
    TABLE.write_text(render(), encoding="utf-8")
