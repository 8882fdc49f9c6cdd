"""From a probe's function to its command: shared options, opening, progress, table, verdict, files and JSON."""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from attnprobe.cli.probe.checks import check_foreign, check_outputs, note_sequences
from attnprobe.cli.probe.files import Record, write_arrays, write_csv
from attnprobe.cli.probe.options import FOREIGN_OPTIONS, SHARED
from attnprobe.cli.probe.table import Table, show
from attnprobe.cli.screen.output import CHECK_FAILED, print_json, print_verdict, progress_bar, say
from attnprobe.errors import about
from attnprobe.opening import Opened, Opener, SplitName, labels

if TYPE_CHECKING:
    from attnprobe.capture.hugging_face.opening import Needs
    from attnprobe.probes.sequences import Progress

GIBIBYTE = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """The shared options as given."""

    sequences: int = 0
    split: SplitName = SplitName.test
    level: float = 0.95
    memory_limit: float = 2.0  # GiB
    seed: int = 0
    device: str = "auto"
    data_dir: Path | None = None
    csv: Path | None = None
    npz: Path | None = None
    figure: Path | None = None
    full: bool = False
    json: bool = False
    quiet: bool = False
    foreign: dict[str, Any] = dataclasses.field(default_factory=dict)  # what foreign models are run on
    needs: "Needs" = "scores"  # what the probe asks of them

    @functools.cached_property
    def opener(self) -> Opener:
        return Opener(
            split=self.split, device=self.device, data_dir=self.data_dir, foreign=self.foreign, needs=self.needs
        )

    def sampling(self) -> dict[str, Any]:
        """What the measuring functions call how much is measured, in how many bytes."""
        return {"n": self.sequences, "memory_limit": round(self.memory_limit * GIBIBYTE)}

    def measure_each(
        self, paths: Sequence[Path], measure: "Callable[[Opened, Progress], Any]", **options: Any
    ) -> "Found":
        """Open all checkpoints, so that none is refused after long work, say if there are fewer sequences than were
        asked for, and measure one after the other.
        """
        from attnprobe.probes.memory import check_least

        found = Found()
        several = about if len(paths) > 1 else contextlib.nullcontext
        for path, label in zip(paths, labels(paths), strict=True):
            with several(str(path)):
                opened = self.opener.open_any(path, label, **options)
                note_sequences(opened, self.sequences, quiet=self.quiet)
                check_least(min(self.sequences, opened.samples), self.sampling()["memory_limit"])
            found.opened.append(opened)
        for opened in found.opened:
            with several(str(opened.path)), self.progress(opened.label) as report:
                found.results[opened.label] = measure(opened, report)
            if opened.capture is not None:
                say(f"{opened.label}: {opened.capture}", quiet=self.quiet)
            for name, what in opened.losses.items():
                say(f"{opened.label}: {name} loss: {what}", quiet=self.quiet)
        return found

    def progress(self, label: str) -> "AbstractContextManager[Progress]":
        return progress_bar(label, quiet=self.quiet or self.json)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What was measured on each checkpoint, by label: results are rows, or have them and ``arrays`` for --npz."""

    opened: list[Opened] = dataclasses.field(default_factory=list)
    results: dict[str, Any] = dataclasses.field(default_factory=dict)

    def captures(self) -> Record:
        """How each foreign model was watched, by its path."""
        return {
            str(opened.path): dataclasses.asdict(opened.capture) | {"losses": opened.losses}
            for opened in self.opened
            if opened.capture is not None
        }

    def records(self, *fields: str) -> list[Record]:
        """Tidy records; fields: what the rows of this probe have beside those of every measurement."""
        from attnprobe.probes.rows import rows_to_records

        return [
            opened.origin() | record
            for opened, result in zip(self.opened, self.results.values(), strict=True)
            for record in rows_to_records(getattr(result, "rows", result), str(opened.path), *fields)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """What a probe found, and how it is shown."""

    records: list[Record]
    table: Table
    verdict: Callable[[list[Record]], str]  # of the records, with q-values and with labels for checkpoints
    results: dict[str, Any] = dataclasses.field(default_factory=dict)  # those of ``Found``
    draw: Callable[[Path], list[Path]] | None = None
    passed: bool | None = None  # of a check; False ends with exit code 5
    captures: Record = dataclasses.field(default_factory=dict)  # those of ``Found``


def make_command(
    probe: Callable[..., Findings],
    *,
    without: Sequence[str] = (),
    reads: Sequence[str] = ("",),
    further: Sequence[str] = (),
    figure_each: bool = False,
    needs: "Needs | None" = None,
    **defaults: Any,
) -> Callable[..., None]:
    """The command of ``probe(request, paths, own options...)``: its own parameters first, then the shared options.

    without: shared options it has no use for. reads: files in each of its paths, where those are folders. further:
    names of the figures after the first; figure_each: every checkpoint has its own. needs: what it asks of foreign
    models, None if it takes none. defaults: of shared options.
    """
    foreign = FOREIGN_OPTIONS if needs is not None else {}
    if needs != "both":
        foreign = {name: option for name, option in foreign.items() if name != "label_column"}
    _, paths, *own = inspect.signature(probe, eval_str=True).parameters.values()
    shared = [
        inspect.Parameter(name, paths.kind, default=defaults.get(name, default), annotation=annotation)
        for name, (annotation, default) in (SHARED | foreign).items()
        if name not in without
    ]

    def run(**given: Any) -> None:
        on = {name: given.pop(name) for name in foreign}
        request = Request(
            **{p.name: given.pop(p.name) for p in shared if p.name not in foreign}, foreign=on, needs=needs or "scores"
        )
        first = given[paths.name] if isinstance(given[paths.name], list) else [given[paths.name]]
        others = [given[p.name] for p in own if isinstance(given[p.name], Path)]
        check_foreign([*first, *others], on)
        figures = [*further, *(labels(first)[1:] if figure_each else ())]
        check_outputs(
            [*(path / name for path in first for name in reads), *others],
            csv=request.csv, npz=request.npz, figure=request.figure, further=figures,
        )  # fmt: skip
        deliver(request, first, probe(request, **given))

    parameters = [paths, *own, *shared]
    run.__name__, run.__doc__ = probe.__name__, probe.__doc__
    run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def deliver(request: Request, paths: Sequence[Path], findings: Findings) -> None:
    """Show, draw and write what was found; every record gains q_value, its p-value adjusted over its family."""
    from attnprobe.probes.rows import with_q_values

    records = with_q_values(findings.records)
    names = dict(zip(map(str, paths), labels(paths), strict=True)) if findings.results else {}
    shown = [r | {"checkpoint": names.get(r["checkpoint"], r["checkpoint"])} if names else r for r in records]
    verdict = findings.verdict(shown)
    if not (request.json or request.quiet):
        show(findings.table, shown, full=request.full)
        print_verdict(verdict)
    figures = findings.draw(request.figure) if findings.draw and request.figure is not None else []
    if request.csv is not None:
        write_csv(request.csv, records)
    if request.npz is not None:
        write_arrays(request.npz, {label: result.arrays() for label, result in findings.results.items()})
    if request.json:
        document = {"checkpoints": list(map(str, paths)), "figures": list(map(str, figures)), "verdict": verdict}
        document |= {"capture": findings.captures} if findings.captures else {}
        passed = {} if findings.passed is None else {"passed": findings.passed}
        print_json(document | passed | {"rows": records})
    else:
        for kind, path in (("rows", request.csv), ("arrays", request.npz), *(("figure", path) for path in figures)):
            if path is not None:
                say(f"{kind}: {path}", quiet=request.quiet)
    if findings.passed is False:
        raise typer.Exit(CHECK_FAILED)
