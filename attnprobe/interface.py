"""What ``import attnprobe as ap`` offers: the functions behind the commands, with results made for notebooks."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attnprobe import opening, run
from attnprobe.capture import convolutions
from attnprobe.capture.arrays import arrays as arrays
from attnprobe.capture.ours import Ours
from attnprobe.capture.subject import Subject
from attnprobe.capture.watching import ForeignLoss as ForeignLoss
from attnprobe.capture.watching import watch as watch
from attnprobe.errors import ArtifactError, NotApplicableError
from attnprobe.files import json_lines, reading
from attnprobe.launch import foreign_trajectory
from attnprobe.launch.arms import settings_of
from attnprobe.launch.trajectory import read_runs, writer_for
from attnprobe.machine import choose_device
from attnprobe.probes import alignment as alignment_probe
from attnprobe.probes import blindness, decomposition, interventions
from attnprobe.probes import kernels as kernels_probe
from attnprobe.probes import proximity as proximity_probe
from attnprobe.probes.rows import rows_to_records, with_q_values
from attnprobe.report import (
    alignment_figures,
    blindness_verdict,
    figures,
    intervention_figures,
    kernel_figures,
    trajectory_figures,
    verdicts,
)
from attnprobe.report.answer import Answer, Record
from attnprobe.studies.request import request as study  # noqa: F401 - offered as ap.study
from attnprobe.training.execute import execute
from attnprobe.training.monitor import Silent
from attnprobe.training.saved.checkpoint import load_checkpoint
from attnprobe.training.saved.listing import runs as runs
from attnprobe.training.saved.run_directory import RunDirectory

if TYPE_CHECKING:
    import pandas

    from theory.rows import Row


def open(
    checkpoint: str | Path,
    *,
    split: Literal["train", "validation", "test"] = "test",
    data_dir: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
) -> Subject:
    """A checkpoint of ours with the data of its task, ready for every probe. seed: of the masks of reconstruction.

    Raises ArtifactError if the file or its data cannot be read.
    """
    opener = opening.Opener(
        split=opening.SplitName(split), device=device, data_dir=None if data_dir is None else Path(data_dir)
    )
    return opener.open(Path(checkpoint)).subject(seed=seed)


def proximity(subject: Subject, **options: Any) -> Answer:
    """How strongly do scores prefer near keys? options: those of ``attnprobe.probes.proximity.probe.measure``.

    >>> import numpy as np, attnprobe as ap
    >>> random = np.random.default_rng(0)
    >>> q, k = random.standard_normal((2, 7, 3, 11, 5))
    >>> ap.proximity(ap.arrays(q, k), n=7, null="keys").to_frame().quantity.unique().tolist()
    ['proximity_bias', 'proximity_bias.max', 'score_sd', 'near_mass', 'distance', 'entropy']
    """
    found = proximity_probe.measure(subject, **options)
    draw = functools.partial(figures.draw_proximity, {"subject": found})
    return _answer("proximity of pre-softmax scores", found.rows, ("null",), verdicts.proximity, found, draw)


def alignment(subject: Subject, **options: Any) -> Answer:
    """Do labels pull the scores where reconstruction pulls them? options: of ``attnprobe.probes.alignment.measure``."""
    found = alignment_probe.measure(subject, **options)
    draw = functools.partial(alignment_figures.draw_alignments, {"subject": found})
    return _answer("gradients along the scores", found.rows, alignment_probe.FIELDS, verdicts.alignment, found, draw)


def intervene(subject: Subject, **options: Any) -> Answer:
    """Does the model need its offset profile? options: of ``attnprobe.probes.interventions.probe.dose_response``."""
    found = interventions.dose_response(subject, **options)
    draw = functools.partial(intervention_figures.draw_dose_response, found)
    return _answer(
        "dose of the offset profile", found.rows, ("kind", "dose", "controls"), verdicts.intervene, found, draw
    )


def decompose(subject: Subject, **options: Any) -> Answer:
    """What are scores made of? options: of ``attnprobe.probes.decomposition.measure``."""
    found = decomposition.measure(subject, **options)
    draw = functools.partial(figures.draw_quantities, {"subject": found.rows})
    return _answer("parts of the scores", found.rows, (), verdicts.decompose, found, draw)


def kernels(subject: Subject | str | Path, **options: Any) -> Answer:
    """How local are the kernels of a state-space model? options: of ``attnprobe.probes.kernels.measure``.

    subject: what ``open`` returns, or just the path of a checkpoint, for the data are not needed.
    """
    if isinstance(subject, Subject):
        if not isinstance(subject, Ours):
            raise NotApplicableError(kernels_probe.NONE, hint="give a checkpoint of a model with state-space mixers")
        model = subject.model
    else:
        model = load_checkpoint(Path(subject)).make_model()
    found = kernels_probe.measure(convolutions.kernels(model), convolutions.layout(model), **options)
    draw = functools.partial(kernel_figures.draw_kernels, {"checkpoint": found})
    return _answer("kernels of long convolutions", found.rows, (), verdicts.kernels, found, draw)


def certify(subject: Subject, **options: Any) -> Answer:
    """Are labels blind to proximity here, up to which share of reconstruction's pull? Its ``result.passed`` says.

    options: those of ``attnprobe.probes.blindness.measure``. Draws nothing.
    """
    found = blindness.measure(subject, **options)
    return _answer(
        "blindness of the labels", found.rows, blindness.FIELDS, blindness_verdict.certify, found, lambda name: []
    )


def _answer(
    title: str,
    rows: Iterable[Any],
    fields: Sequence[str],
    verdict: Callable[[list[Record]], str],
    result: Any,
    draw: Callable[[Path], list[Path]],
) -> Answer:
    records = with_q_values(rows_to_records(rows, "subject", *fields))
    own = [{key: value for key, value in record.items() if key != "checkpoint"} for record in records]
    return Answer(title=title, rows=own, verdict=verdict(records), result=result, draw=draw)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run directory."""

    folder: Path
    result: dict[str, Any]  # accuracies and losses of the last phase, as in result.json

    @property
    def checkpoints(self) -> dict[str, Path]:
        """Name (init, pretrained, finetuned) -> file."""
        return {name: Path(path) for name, path in RunDirectory(self.folder).checkpoints().items()}

    def metrics(self) -> "pandas.DataFrame":
        """One row per epoch and phase."""
        import pandas

        path = RunDirectory(self.folder).metrics
        with reading(path):
            return pandas.DataFrame.from_records(json_lines(path))

    def open(self, checkpoint: str = "finetuned", **options: Any) -> Subject:
        """One of its checkpoints as a subject; options: of ``attnprobe.open``."""
        if checkpoint not in self.checkpoints:
            there = ", ".join(self.checkpoints)
            raise ArtifactError(f"{self.folder} has no checkpoint {checkpoint!r}", hint=f"there are {there}")
        return open(self.checkpoints[checkpoint], **options)


def train(
    preset: str = run.DEFAULT_PRESET,
    *,
    out: str | Path,
    settings: Sequence[str] = (),
    pretrain: bool = True,
    pretrained: str | Path | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    probe_every: float | None = None,
    probe_sequences: int = 32,
) -> Run:
    """Carry out a run in this process and return it. preset: a name or a .toml file; settings: "section.key=value".
    pretrain=False: from scratch; pretrained: finetune from this checkpoint instead of pretraining.
    probe_every: probe validation sequences at steps 0, 1 and each time their number grew by this factor.

    The same settings give the same run as ``attnprobe train``. An exception (KeyboardInterrupt, too) leaves a folder
    that ``resume=True`` goes on with from its last save.
    """
    config = run.resolved(run.from_table(settings_of(preset, settings, pretrain=pretrain, pretrained=pretrained)))
    watch = None
    if probe_every is not None:
        watch = writer_for(config, Path(out), factor=probe_every, sequences=probe_sequences)
    result = execute(
        config,
        Path(out),
        device=choose_device(device),
        monitor=Silent(),
        data_dir=None if data_dir is None else Path(data_dir),
        resume=resume,
        overwrite=overwrite,
        watch=watch,
    )
    return Run(folder=Path(out), result=result)


def load_run(folder: str | Path) -> Run:
    """A finished run; ArtifactError if there is none in the folder."""
    result = RunDirectory(Path(folder)).read_result()
    if result is None:
        raise ArtifactError(f"{folder} holds no finished run", hint="finish it: attnprobe train ... --resume")
    return Run(folder=Path(folder), result=result)


def trajectory(*runs: "str | Path | Run", **of_foreign: Any) -> Answer:
    """Proximity bias, and both losses' gradients along near against far keys, by training step, of one run or several.

    runs: directories of runs with ``probe_every``; or "hf:FOLDER" of checkpoints, "hf:ID@REV,REV", to be measured on
    what ``launch.foreign_trajectory.measure`` takes. ArtifactError if there are none.
    """
    given = [run.folder if isinstance(run, Run) else Path(run) for run in runs]
    foreign = [path for path in given if opening.is_foreign(path)]
    records = read_runs([p for p in given if p not in foreign], warn=lambda text: warnings.warn(text, stacklevel=2))
    records = with_q_values(records + foreign_trajectory.measure(foreign, **of_foreign))
    draw = functools.partial(trajectory_figures.draw_trajectory, records)
    return Answer(title="trajectory", rows=records, verdict=verdicts.trajectory(records), result=None, draw=draw)


def verify(claims: Sequence[str] | None = None, *, length: int = 64, dim: int = 5, seed: int = 0) -> "list[Row]":
    """The rows of the theory's claims (all by default): predicted against measured, each with ``passed``.

    ValueError if there is no such claim.
    """
    from theory.checks import verify as verify_claims

    return verify_claims(claims=claims, length=length, dim=dim, seed=seed)
