"""The trajectory of a Hugging Face model: its saved states, opened and measured one after the other."""

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe.capture.hugging_face.opening import Source, open_source
from attnprobe.capture.hugging_face.states import State, saved_states
from attnprobe.errors import ConfigError, NotApplicableError, about
from attnprobe.machine import choose_device
from attnprobe.probes.trajectory import Trajectory

if TYPE_CHECKING:
    from attnprobe.capture.subject import Capture

Record = dict[str, Any]
SEQUENCES = 100  # of every state, unless a number is named


def measure(
    models: Sequence[Path],
    *,
    warn: Callable[[str], None] = functools.partial(warnings.warn, stacklevel=3),
    sequences: int = SEQUENCES,
    seed: int = 0,
    device: str = "auto",
    text: str | Path | None = None,
    images: str | Path | None = None,
    **data: Any,
) -> list[Record]:
    """Records of several models, each as the command line calls it (hf:...). text, images, data: fields of ``Source``,
    what they are run on.
    """
    places = {"text": None if text is None else Path(text), "images": None if images is None else Path(images)}
    records: list[Record] = []
    for model in models:
        source = Source(model=str(model).removeprefix("hf:"), **places, **data)
        states = ForeignTrajectory(source=source, device=device, sequences=sequences, seed=seed, warn=warn)
        records += states.measure()
    return records


@dataclasses.dataclass(kw_only=True)
class ForeignTrajectory:
    """Of one model. Only one state is in memory at a time."""

    source: Source  # its model is a folder of checkpoints, or ID@REVISION,REVISION
    device: str = "auto"
    sequences: int = SEQUENCES
    seed: int = 0
    warn: Callable[[str], None]
    built: dict[str, Any] = dataclasses.field(
        default_factory=dict
    )  # names of weights and their shapes, by the first state
    captures: "dict[str, Capture]" = dataclasses.field(default_factory=dict)  # by state, how it was watched

    @property
    def name(self) -> str:
        return f"hf:{self.source.model}"

    def measure(self, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Record]:
        """Tidy records as of a run, of no phase: proximity of every state, and with labels both losses' gradients."""
        records: list[Record] = []
        states = saved_states(self.source, warn=self.warn)
        for number, state in enumerate(states):
            with about(state.name):
                records += self._of(state)
            progress(number + 1, len(states))
        return records

    def _of(self, state: State) -> Iterator[Record]:
        settings = Trajectory(sequences=self.sequences, seed=self.seed)
        needs = "both" if state.source.gives_labels else "scores"
        subject = open_source(state.source, choose_device(self.device), needs=needs, seed=self.seed)
        shapes = {name: tensor.shape for name, tensor in subject.model.state_dict().items()}
        if self.built and self.built != shapes:
            hint = "give each model's states a folder of their own"
            raise ConfigError("its weights have other names or shapes: it is no state of the same model", hint=hint)
        self.built = shapes
        found = settings.proximity(subject)
        if needs == "both":
            with self._told(state):
                found += settings.gradients(subject)
        if subject.capture is not None:
            self.captures[f"{self.name}, step {state.step}"] = subject.capture
        for record in found:
            yield {"run": self.name, "phase": None, "step": state.step} | record

    @contextlib.contextmanager
    def _told(self, state: State) -> Iterator[None]:
        """A state whose gradients say nothing, such as that of step 0, leaves those of the others as they are."""
        try:
            yield
        except NotApplicableError as error:
            self.warn(f"{state.name} has no gradients: {error}")
