"""The sections of a page, in their order. Each is a file: ``section(material)`` makes it, or None if it has nothing."""

from collections.abc import Callable

from attnprobe.report.page.material import Material
from attnprobe.report.page.parts import Section
from attnprobe.report.page.sections import accuracy, curves, manifest, proximity, runs, studies, theory, trajectory

SECTIONS: tuple[Callable[[Material], Section | None], ...] = (
    runs.section,
    studies.section,
    accuracy.section,
    curves.section,
    trajectory.section,
    proximity.section,
    theory.section,
    manifest.section,
)
