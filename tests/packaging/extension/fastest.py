"""A section of the page: which run took the least time."""

from attnprobe.report.page.material import Material
from attnprobe.report.page.parts import Section, Text


def section(material: Material) -> Section | None:
    text = f"Of {len(material.listed)} runs one was the fastest."
    return Section(title="The fastest run", parts=[Text(text=text)], short=text)
