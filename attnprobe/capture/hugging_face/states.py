"""The saved states of one model: revisions on the hub, or the checkpoints that its training left in a folder."""

import dataclasses
import itertools
import re
from collections.abc import Callable
from pathlib import Path

from attnprobe.capture.hugging_face.opening import Source
from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.files import reading
from attnprobe.models.hugging_face.loading import split_revision

STEP = re.compile(r"(?:step|checkpoint|ckpt|iter)[-_=]?(\d+)", re.IGNORECASE)
READERS = {  # files without which a folder has no tokenizer, or no image processor, of its own
    "text": ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.txt", "vocab.json"),
    "images": ("preprocessor_config.json", "processor_config.json"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    step: int  # of training
    name: str  # of the revision or the folder
    source: Source


def saved_states(source: Source, *, warn: Callable[[str], None]) -> list[State]:
    """By step, which stands in their names. source.model: a folder of folders, or ``ID@REVISION,REVISION``.

    A folder of checkpoints may keep tokenizer and image processor once, beside them. ``warn`` is told what is left out.
    ArtifactError if there are none; ConfigError if a revision names no step, or two name the same.
    """
    model, revisions = split_revision(source.model)
    if revisions is not None:
        states = [_state(name, dataclasses.replace(source, model=f"{model}@{name}")) for name in revisions.split(",")]
    elif Path(model).is_dir():
        states = [_state(place.name, _in_folder(source, place)) for place in _folders(Path(model), warn)]
    else:
        hint = "name several, by step: hf:EleutherAI/pythia-70m@step0,step1000; or give a folder of checkpoints"
        raise ConfigError(f"hf:{model} names no revisions", hint=hint)
    states.sort(key=lambda state: state.step)
    for one, other in itertools.pairwise(states):
        if one.step == other.step:
            reason = f"hf:{source.model}: {one.name} and {other.name} are both of step {one.step}"
            raise ConfigError(reason, hint="name one of them only, or move one away")
    return states


def _state(name: str, source: Source) -> State:
    step = step_of(name)
    if step is None:
        hint = "name revisions of which the step is known, like step1000"
        raise ConfigError(f"the revision {name!r} does not say of which step it is", hint=hint)
    return State(step=step, name=name, source=source)


def step_of(name: str) -> int | None:
    """The number behind step or checkpoint, else the last one: 4000 in stage1-step4000-tokens9B, 3 in epoch3."""
    found = STEP.findall(name) or re.findall(r"\d+", name)
    return int(found[-1]) if found and len(found[-1]) < 16 else None


def _folders(folder: Path, warn: Callable[[str], None]) -> list[Path]:
    with reading(folder):
        places = sorted(place for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))
    found = []
    for place in places:
        if not (place / "config.json").is_file():
            if step_of(place.name) is not None:
                warn(f"{place} has no config.json and is left out")
        elif step_of(place.name) is None:
            warn(f"{place} does not say of which step it is, and is left out")
        else:
            found.append(place)
    if not found:
        hint = "expected folders like checkpoint-100 or step1000, each with config.json and safetensors"
        raise ArtifactError(f"{folder} holds no saved checkpoints", hint=hint)
    return found


def _in_folder(source: Source, place: Path) -> Source:
    files = READERS["text" if source.images is None else "images"]
    own = any((place / name).is_file() for name in files)
    return dataclasses.replace(source, model=str(place), reader=None if own else str(place.parent))
