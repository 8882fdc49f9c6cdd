"""How strongly the checkpoints prefer near keys: bias, profiles by offset, maps on a grid."""

import numpy as np

from attnprobe.probes.proximity.probe import Proximity
from attnprobe.report import verdicts
from attnprobe.report.page.charts.axes import STYLES
from attnprobe.report.page.charts.lines import Line, Panel, line_figure
from attnprobe.report.page.charts.maps import Map, map_figure
from attnprobe.report.page.material import Material, Probed
from attnprobe.report.page.parts import Figure, Section, Table, Text, interval, number

MOST_HEADS, MOST_MAPPED = 12, 4
WIDEST_MAP = 6  # offsets to either side
WINDOW = (8, 12)  # profiles reach so many radii, and so many positions at least
STAGES = {"init": "initial", "pretrained": "pretrained", "finetuned": "finetuned"}


def section(material: Material) -> Section | None:
    if not material.probed:
        return None
    further = [Section(title=f"{probed.arm} ({probed.folder})", parts=parts(probed)) for probed in material.probed]
    about = Text(
        text="Pre-softmax scores of the first finished run of every arm, on sequences of its test data, against the "
        "same model with W_Q and W_K drawn anew."
    )
    return Section(title="Proximity of the scores", parts=[about], further=further)


def parts(probed: Probed) -> list:
    if probed.reason:
        return [Text(text=f"Not measured: {probed.reason}")]
    last = list(probed.results.values())[-1]
    heads = largest(probed, list(np.ndindex(*last.sd.shape)))
    found: list = [Text(text=verdicts.proximity(list(probed.records))), bias_table(probed), profiles(probed, heads)]
    if all(result.map is not None for result in probed.results.values()):
        found.append(maps(probed, heads[:MOST_MAPPED]))
    return found


def largest(probed: Probed, heads: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Heads by the size of their bias in the last checkpoint, the largest first."""
    name = list(probed.results)[-1]
    rows = [r for r in probed.records if r["checkpoint"] == name and r["quantity"] == "proximity_bias"]
    bias: dict[tuple[int, ...], float] = {(r["layer"], r["head"]): abs(r["estimate"] or 0.0) for r in rows}
    return sorted(heads, key=lambda head: -bias.get(head, 0.0))


def bias_table(probed: Probed) -> Table:
    rows: dict[str, list[str]] = {}
    for r in probed.records:
        if r["quantity"] in ("proximity_bias", "proximity_bias.max"):
            place = verdicts.place(r) if r["head"] is not None else _whole(r["layer"])
            cell = f"{number(r['estimate'], '+.2f')} {interval(r['low'], r['high'], '+.2f')}"
            p = "" if r["p_value"] is None else f", p {r['p_value']:.2g}"
            rows.setdefault(place, []).append(cell + p)
    columns = ["head", *(STAGES[name] for name in probed.results)]
    lines = [[place, *cells] for place, cells in rows.items()]
    return Table(caption="Proximity bias in sd of the scores, with 95 % intervals", columns=columns, rows=lines)


def head_name(head: tuple[int, ...]) -> str:
    return verdicts.place({"layer": head[0], "head": head[1]})


def _whole(layer: int | None) -> str:
    return "largest of the model" if layer is None else f"largest of layer {layer}"


def profiles(probed: Probed, heads: list[tuple[int, ...]]) -> Figure:
    first = next(iter(probed.results.values()))
    (axis, values), *_ = first.profile.axes.items()
    window = max(WINDOW[0] * first.radius, WINDOW[1])
    shown = (np.abs(values) <= window) & (values <= (0 if first.layout.causal and axis == "offset" else np.inf))
    panels = []
    for head in sorted(heads[:MOST_HEADS]):
        lines = [
            _profile(result, head, values, shown, STAGES[name], style % STYLES)
            for style, (name, result) in enumerate(probed.results.items())
        ]
        near = (-first.radius if values.min() < 0 else 0.0, first.radius)
        panels.append(Panel(title=head_name(head), lines=lines, shaded=near, zero=True))
    x_label = "offset: key \u2212 query (positions)" if axis == "offset" else "distance (pixels)"
    caption = "Mean centred score in sd of the scores; the shaded strip counts as near, bands are 95 % intervals."
    caption += f" {MOST_HEADS} of {len(heads)} heads, those of the largest bias." if len(heads) > MOST_HEADS else ""
    return line_figure(panels, caption=caption, x_label=x_label, share_y=True, digits="+.3f")


def _profile(
    result: Proximity, head: tuple[int, ...], values: np.ndarray, shown: np.ndarray, name: str, style: int
) -> Line:
    sd = result.sd[head]
    scale = sd if sd > 0 else np.nan
    band = result.profile.score
    y, low, high = ((a[head][shown] / scale).tolist() for a in (band.estimate, band.low, band.high))
    return Line(name=name, style=style, x=values[shown].tolist(), y=y, low=low, high=high)


def maps(probed: Probed, heads: list[tuple[int, ...]]) -> Figure:
    drawn = []
    for head in sorted(heads):
        for name, result in probed.results.items():
            assert result.map is not None
            y, x = result.map.axes.values()
            rows, columns = np.abs(y) <= WIDEST_MAP, np.abs(x) <= WIDEST_MAP
            sd = result.sd[head]
            values = result.map.score.estimate[head][np.ix_(rows, columns)] / (sd if sd > 0 else np.nan)
            drawn.append(Map(title=head_name(head), more=STAGES[name], y=y[rows], x=x[columns], values=values))
    radius = next(iter(probed.results.values())).radius
    caption = (
        "Mean centred score (sd of scores) by offset from query to key in pixels; the circle is what counts as near."
    )
    return map_figure(drawn, caption=caption, axes=("row offset", "column offset"), radius=radius)
