"""Colours and settings that all figures of the theory share."""

from typing import Any

# Okabe and Ito's colours, told apart with any colour vision.
LABEL, RECONSTRUCTION, THIRD, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
}

METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": "attnprobe"},
    "pdf": {"Creator": "attnprobe", "CreationDate": None},
}
