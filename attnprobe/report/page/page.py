"""Sections into one HTML document that needs nothing else: no network, no files beside it."""

import base64
import datetime
import hashlib
from pathlib import Path

import jinja2

from attnprobe import __version__
from attnprobe.report.page.charts.maps import SHADES
from attnprobe.report.page.material import Material
from attnprobe.report.page.sections import SECTIONS

FOLDER = Path(__file__).parent


def make_page(material: Material) -> str:
    """The document, with everything in it that comes from files escaped by the template."""
    sections = [found for make in SECTIONS if (found := make(material)) is not None]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    style = (FOLDER / "page.css").read_text(encoding="utf-8") + shades()
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    text = environment.get_template("page.html.j2").render(
        title=material.title,
        version=__version__,
        written=in_words(material.written),
        sections=sections,
        short=[section.short for section in sections if section.short],
        style=style,
        script=script,
        style_hash=allowed(style),
        script_hash=allowed(script),
    )
    return text.encode("utf-8", "replace").decode()  # names of files may be bytes that are no text


def in_words(time: str) -> str:
    return datetime.datetime.fromisoformat(time).astimezone(datetime.UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0")


def allowed(content: str) -> str:
    """What the page's own policy lets run and style: these very bytes, and nothing else."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def shades() -> str:
    """Colours of maps, from cold over the middle to warm, whatever these are in light and dark."""
    rules = []
    for n in range(-SHADES, SHADES + 1):
        end, share = "warm" if n > 0 else "cold", round(100 * abs(n) / SHADES)
        rules.append(f".v{n} {{ fill: color-mix(in oklab, var(--{end}) {share}%, var(--middle)); }}")
    return "\n".join(rules) + "\n"
