"""Tables of a study as Markdown and as LaTeX (booktabs)."""

import math
import re
from collections.abc import Mapping, Sequence

from attnprobe.report.studies.sheet import Entry, Sheet

LATEX = {  # what LaTeX takes for a command, and signs that its usual fonts lack
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$", "\u00d7": r"$\times$", "\u2212": r"$-$", "→": r"$\to$",
    "≤": r"$\leq$", "≥": r"$\geq$",
}  # fmt: skip
MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~])")


def number(value: float, *, signed: bool = False) -> str:
    """Three decimals, more of what would vanish, none of large numbers; a hyphen for minus, as spreadsheets read it."""
    if 0 < abs(value) < 0.0005:
        plain = f"{value:.2g}"
    else:
        plain = f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"
    return f"+{plain}" if signed and value > 0 else plain


def markdown(sheets: Sequence[Sheet], *, title: str, question: str, opening: str, figures: Mapping[str, str]) -> str:
    """The page ``table.md``. opening: its first line, which tells a file of ours; figures: title -> file beside it."""
    parts = [f"<!-- {opening} -->", f"# {escape(title)}", escape(question)]
    for sheet in sheets:
        parts += [f"## {escape(sheet.title)}", _markdown_table(sheet)]
        parts.append("\n".join(f"- {escape(note)}" for note in sheet.notes))
    parts += [f"![{escape(title)}]({file})" for title, file in figures.items()]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """So that Markdown shows it as it is, on one line."""
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _markdown_table(sheet: Sheet) -> str:
    rule = ["---"] * sheet.labels + ["---:"] * (len(sheet.head) - sheet.labels)
    lines = [[escape(title) for title in sheet.head], rule, *([_markdown(e) for e in line] for line in sheet.lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown(entry: Entry) -> str:
    text = escape(entry.text) if entry.value is None else _bounded(entry)
    text = f"**{text}**" if entry.bold else text
    return f"{text} ({entry.note})" if entry.note else text


def plain(entry: Entry) -> str:
    """For a terminal; a star stands for bold."""
    text = entry.text if entry.value is None else _bounded(entry)
    text = f"{text} *" if entry.bold else text
    return f"{text} ({entry.note})" if entry.note else text


def _bounded(entry: Entry) -> str:
    assert entry.value is not None
    text = number(entry.value, signed=entry.signed)
    if math.isnan(entry.low):
        return text
    return f"{text} [{', '.join(number(bound, signed=entry.signed) for bound in (entry.low, entry.high))}]"


def latex(sheets: Sequence[Sheet], *, opening: str) -> str:
    """The file ``table.tex``, to be put into a document that loads booktabs."""
    return "\n\n".join([f"% {opening}", *(_latex_table(sheet) for sheet in sheets)]) + "\n"


def _latex_table(sheet: Sheet) -> str:
    lines = []
    for entries, start in zip(sheet.lines, sheet.starts, strict=True):
        if start and lines and not all(sheet.starts):
            lines.append(r"\addlinespace")
        lines.append(f"{' & '.join(_latex(e) for e in entries)} \\\\")
    columns = "l" * sheet.labels + "r" * (len(sheet.head) - sheet.labels)
    head = " & ".join(tex(title) for title in sheet.head)
    notes = " ".join(tex(note) for note in sheet.notes)
    return "\n".join([
        r"\begin{table}", r"\centering", rf"\caption{{{tex(sheet.title)}}}", rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule", f"{head} \\\\", r"\midrule", *lines, r"\bottomrule", r"\end{tabular}", "",
        rf"\smallskip\begin{{minipage}}{{\linewidth}}\footnotesize {notes}\end{{minipage}}", r"\end{table}",
    ])  # fmt: skip


def _latex(entry: Entry) -> str:
    text = tex(entry.text)
    if entry.value is not None:
        text = number(entry.value, signed=entry.signed).replace(",", "{,}")
        if not math.isnan(entry.low):
            text += rf" \pm {number((entry.high - entry.low) / 2).replace(',', '{,}')}"
        text = rf"$\mathbf{{{text}}}$" if entry.bold else f"${text}$"
    return f"{text} ({tex(entry.note)})" if entry.note else text


def tex(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in " ".join(text.split()))
