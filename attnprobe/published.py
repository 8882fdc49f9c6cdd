"""What ``published = true`` turns on: every habit of the published code that the defaults here depart from.

The published code is that of Amos et al. 2023, on which Coser et al. 2026 build. Each switch is an ordinary setting of
its own; this file only gathers them. A switch that the table of a run already sets explicitly is left as it is, so that
one of them can be varied under the others, and so that the settings a run has written are read back as they are.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from attnprobe.config import Table

PHASES = ("pretrain", "finetune")
CLONED = ("attention", "block_local")  # mixers whose projections the published code makes by copying one
TOKENS = ("listops", "text", "retrieval", "table")  # tasks whose inputs are no values
MASKED = ("masked", "denoising")  # objectives that hide inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Switch:
    """One setting as the published code has it."""

    key: str  # dotted, as after -s
    value: Any
    why: str  # what the published code does


def switches(table: Table) -> list[Switch]:
    """Those that apply to the run of this table, in the order of its sections."""
    tasks = {_name(table.get("task"))} | {_name(_section(table, phase).get("task")) for phase in PHASES}
    found = _of_the_task(table)
    foreign = "backbone" in _section(table, "model")  # starts as its own code has it, and never reconstructed
    if _name(_section(table, "model").get("mixer", "attention")) in CLONED and not foreign:
        found.append(Switch(key="model.init", value="tied", why="W_Q, W_K, W_V and W_O start as copies of one layer"))
    found.append(Switch(key="model.padding", value="attended", why="attention gets no padding mask"))
    if tasks & {"text", "retrieval"} and not foreign:
        why = "a misspelt attribute leaves Text and Retrieval without a head: features are the logits of tokens"
        found.append(Switch(key="model.reconstruction_head", value="identity", why=why))
    if not tasks & set(TOKENS) and not _hides(table) and "pretrained" not in table:
        why = "without masks the inputs have no mask channel that would count in the start of the embedding"
        found.append(Switch(key="model.embedding_fan_in", value="without_mask", why=why))
    for phase in PHASES:
        found += _of_a_phase(phase, table)
    why = "samples of random lengths share a batch, which is padded to the longest of them"
    return [*found, Switch(key="engine.batching", value="longest", why=why)]


def _of_the_task(table: Table) -> list[Switch]:
    name = _name(table.get("task"))
    if name == "text":
        return [Switch(key="task.validation", value="test", why="the test set is also the validation set")]
    if name == "speech-commands":
        return [Switch(key="task.double_scaling", value=True, why="samples are divided by 2^15 twice")]
    if name == "bidmc" and "pretrain" not in table and "pretrained" not in table:
        return [Switch(key="task.rescale_targets", value=False, why="labels are rescaled after self-pretraining only")]
    return []


def _of_a_phase(phase: str, table: Table) -> list[Switch]:
    if not isinstance(table.get(phase), Mapping):
        return []
    why = "biases, norms and embeddings are decayed like matrices"
    found = [Switch(key=f"{phase}.optimizer.decay", value="all", why=why)]
    found.append(Switch(key=f"{phase}.optimizer.warmup_start", value="zero", why="the first update has rate 0"))
    objective = _section(table, phase).get("objective")
    if isinstance(objective, Mapping) and objective.get("loss") == "cross_entropy":
        why = "of reconstructions by cross-entropy the epoch of highest accuracy is kept"
        found.append(Switch(key=f"{phase}.selection", value="accuracy", why=why))
    found.append(Switch(key=f"{phase}.ties", value="later", why="of equally good epochs the later one is kept"))
    why = "the last incomplete batch of validation and test data is left out"
    found.append(Switch(key=f"{phase}.evaluation", value="drop_last", why=why))
    if _name(objective) in MASKED:
        why = "validation and test data are masked anew at every evaluation"
        found.append(Switch(key=f"{phase}.evaluation_masks", value="fresh", why=why))
    return found


def completed(table: Table) -> Table:
    """The table with every switch it does not set itself, if it says ``published = true``; else the table itself."""
    if table.get("published") is not True:
        return table
    result = dict(table)
    for switch in switches(table):
        *sections, setting = switch.key.split(".")
        place = result
        for section in sections:
            inner = place.get(section, {})
            if isinstance(inner, str) and section == "task":  # "text" is short for {name = "text"}
                inner = {"name": inner}
            if not isinstance(inner, Mapping):
                break  # a mistake, which is named where settings are read
            place[section] = dict(inner)
            place = place[section]
        else:
            place.setdefault(setting, switch.value)
    return result


def described(table: Table) -> dict[str, dict[str, Any]]:
    """Of a run's complete table: which switches are ``on``, and which settings were ``kept`` as they had been given."""
    answer: dict[str, dict[str, Any]] = {"on": {}, "kept": {}}
    if table.get("published") is not True:
        return answer
    for switch in switches(table):
        value: Any = table
        for part in switch.key.split("."):
            value = value[part]
        answer["on" if value == switch.value else "kept"][switch.key] = value
    return answer


def lines(table: Table) -> list[str]:
    """The same for a person to read; nothing if the run does not ask for the published switches."""
    found = described(table)
    words = {"on": "published switches on", "kept": "kept as given, other than published"}
    listed = {kind: ", ".join(f"{key}={value}" for key, value in found[kind].items()) for kind in words}
    return [f"{words[kind]}: {text}" for kind, text in listed.items() if text]


def _section(table: Table, name: str) -> Mapping[str, Any]:
    found = table.get(name)
    return found if isinstance(found, Mapping) else {}


def _name(choice: Any) -> str | None:
    return choice.get("name") if isinstance(choice, Mapping) else choice if isinstance(choice, str) else None


def _hides(table: Table) -> bool:
    return any(_name(_section(table, phase).get("objective")) in MASKED for phase in PHASES)
