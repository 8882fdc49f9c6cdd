"""One measurement of a study: what a probe finds in a checkpoint of a run, as one number for each of its quantities."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from attnprobe.capture import convolutions
from attnprobe.config import did_you_mean
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.files import to_json, write_text
from attnprobe.opening import Opener, SplitName
from attnprobe.probes import kernels, proximity
from attnprobe.probes.trajectory import Trajectory
from attnprobe.studies.store.folder import Store
from attnprobe.studies.study import Measure, Settings
from attnprobe.studies.work import prices
from attnprobe.training.saved.checkpoint import load_checkpoint

Rows = list[tuple[str, float]]  # quantity, estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """The work of a job: can be pickled, and leaves the file where ``Store.measured`` looks."""

    store: Store
    key: str  # of the run
    measure: Measure
    quantities: frozenset[str]  # what the study wants of it
    file: str  # what names the measure in the store
    device: str = "auto"
    data_dir: Path | None = None

    def __call__(self) -> None:
        path = self.store.checkpoint(self.key, self.measure.checkpoint)
        try:
            rows = PROBES[self.measure.probe](path, self)
            found, note = means(rows), ""
        except NotApplicableError as error:  # of models without scores, say: there is nothing to measure, ever
            found, note = {}, str(error)
        except TypeError as error:
            message = f"the settings of measure {self.measure.quantity} are not those of its probe: {error}"
            raise ConfigError(message, hint="see the docstring of the probe's measure") from error
        said = {"probe": self.measure.probe, "checkpoint": str(path), "settings": self.measure.settings}
        text = to_json(said | {"numbers": found, "note": note}) + "\n"
        write_text(self.store.measure(self.key, self.file), text)
        if found:
            self._check_quantities(found)

    def _check_quantities(self, known: Iterable[str]) -> None:
        """A quantity that the probe does not give would be missing for ever, without a word."""
        for wanted in sorted(self.quantities.difference(known)):
            message = f"{self.measure.probe} measures no {wanted!r}"
            raise ConfigError(f"{message}; {did_you_mean(wanted, sorted(known))}", hint="mend the study's file")


def means(rows: Rows) -> dict[str, float]:
    """The mean of every quantity over layers and heads, without those that are not finite; NaN if none is."""
    found = defaultdict[str, list[float]](list)
    for quantity, estimate in rows:
        found[quantity] += [estimate] if math.isfinite(estimate) else []
    return {quantity: float(np.mean(values)) if values else math.nan for quantity, values in found.items()}


def _subject(path: Path, work: Measurement, settings: Settings) -> Any:
    """settings may name the split."""
    split = SplitName(settings.pop("split", "test"))
    opener = Opener(split=split, device=work.device, data_dir=work.data_dir)
    return opener.open(path).subject(seed=settings.get("seed", 0))


def _proximity(path: Path, work: Measurement) -> Rows:
    settings: Settings = {"n": 200, "null": "none", **work.measure.settings}
    found = proximity.measure(_subject(path, work, settings), **settings)
    return [(row.quantity, row.interval.estimate) for row in found.rows]


def _trajectory(path: Path, work: Measurement) -> Rows:
    settings: Settings = dict(work.measure.settings)
    records = Trajectory(**_without(settings, "split")).measure(_subject(path, work, settings))
    return [(record["quantity"], math.nan if record["estimate"] is None else record["estimate"]) for record in records]


def _kernels(path: Path, work: Measurement) -> Rows:
    model = load_checkpoint(path).make_model()
    found = kernels.measure(convolutions.kernels(model), convolutions.layout(model), **work.measure.settings)
    return [(row.quantity, row.interval.estimate) for row in found.rows]


def _without(settings: Settings, name: str) -> Settings:
    return {key: value for key, value in settings.items() if key != name}


def _alignment(path: Path, work: Measurement) -> Rows:
    settings: Settings = {"split": "train", **work.measure.settings}
    return prices.rows(path, lambda each: _subject(each, work, dict(settings)), **_without(settings, "split"))


PROBES = {"alignment": _alignment, "proximity": _proximity, "trajectory": _trajectory, "kernels": _kernels}
