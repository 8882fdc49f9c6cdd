"""Tables that fit: columns as wide as there is room for, words never broken, what finds no room in a table below."""

import re
from collections.abc import Sequence

from rich.cells import cell_len

GAP = 2  # blanks between columns
BREAKS = re.compile(r"(?<=[ \n])|(?<=/)(?=.)")  # a cell may be broken after blanks, a path after its slashes
INSIDE = re.compile(r"(?<=,) (?=[^][]*\])")  # the blank in [low, high]
UNBROKEN = "\u00a0"  # a blank at which no line ends

Rows = Sequence[Sequence[str]]


def layout(columns: Sequence[str], rows: Rows, width: int, *, keys: int = 1, numeric_from: int = 1) -> list[list[str]]:
    """Lines of one table of at most ``width`` characters, or of several, each with the first ``keys`` columns.

    Columns from ``numeric_from`` on are flush right. Intervals in square brackets count as one word. A word longer
    than its column can be is cut there: words are kept whole as long as the key columns and one more have room.
    """
    cells = columns_of(columns, rows)
    return [_lines([cells[i] for i in part], width, part, numeric_from) for part in parts(columns, rows, width, keys)]


def columns_of(columns: Sequence[str], rows: Rows) -> list[list[str]]:
    """Column by column, headings first."""
    return [[INSIDE.sub(UNBROKEN, line[i]) for line in (columns, *rows)] for i in range(len(columns))]


def parts(columns: Sequence[str], rows: Rows, width: int, keys: int) -> list[list[int]]:
    """Which columns can stand side by side: lists of their numbers, each beginning with the keys."""
    narrowest = [_narrowest(column) for column in columns_of(columns, rows)]
    first = list(range(min(keys, len(columns))))
    found, taken = [first], sum(narrowest[i] + GAP for i in first)
    room = width + GAP - taken
    for i in range(len(first), len(columns)):
        if narrowest[i] + GAP > room and found[-1] != first:
            found.append(first)
            room = width + GAP - taken
        found[-1] = [*found[-1], i]
        room -= narrowest[i] + GAP
    return found


def _lines(cells: list[list[str]], width: int, numbers: list[int], numeric_from: int) -> list[str]:
    widths = _widths(cells, width)
    wrapped = [[wrap(cell, size) for cell in column] for column, size in zip(cells, widths, strict=True)]
    lines = []
    for row in zip(*wrapped, strict=True):
        for i in range(max(map(len, row))):
            line = []
            for number, texts, size in zip(numbers, row, widths, strict=True):
                text = texts[i] if i < len(texts) else ""
                blank = " " * (size - cell_len(text))
                line.append(blank + text if number >= numeric_from else text + blank)
            lines.append((" " * GAP).join(line).rstrip().replace(UNBROKEN, " "))
    return lines


def _widths(cells: list[list[str]], width: int) -> list[int]:
    """All columns share one cap, the largest that fits; none is narrower than its longest word, if that fits."""
    narrow, wide = [_narrowest(column) for column in cells], [max(map(_widest, column)) for column in cells]
    room = width - GAP * (len(cells) - 1)
    if sum(narrow) > room:
        narrow = [1] * len(cells)
    for cap in range(max(wide, default=1), 0, -1):
        found = [min(most, max(least, cap)) for least, most in zip(narrow, wide, strict=True)]
        if sum(found) <= room:
            return found
    return [max(1, least) for least in narrow]


def _narrowest(column: Sequence[str]) -> int:
    return max((cell_len(word.rstrip()) for cell in column for word in BREAKS.split(cell)), default=0)


def _widest(cell: str) -> int:
    return max(map(cell_len, cell.split("\n")))


def wrap(cell: str, width: int) -> list[str]:
    """The cell's lines, broken where words end; longer words are cut."""
    lines = []
    for paragraph in cell.split("\n"):
        line = ""
        for word in BREAKS.split(paragraph):
            if line and cell_len((line + word).rstrip()) > width:
                lines.append(line.rstrip())
                line = ""
            while cell_len(word.rstrip()) > width:
                word, line = word[width:], word[:width]
                lines.append(line)
                line = ""
            line += word
        lines.append(line.rstrip())
    return lines
