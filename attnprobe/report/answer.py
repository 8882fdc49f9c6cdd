"""What a probe found, as a notebook shows it: tidy rows, a verdict in words, named axes, pictures."""

import base64
import dataclasses
import html
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe.errors import ConfigError
from attnprobe.files import parse_json

if TYPE_CHECKING:
    import pandas
    import xarray  # pyright: ignore[reportMissingImports]

Record = dict[str, Any]
SHOWN = 24  # rows of an answer in a notebook


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Answer:
    """What a probe found: tidy rows with q-values, a verdict in words, and the probe's own result with its arrays."""

    title: str
    rows: list[Record]
    verdict: str
    result: Any
    draw: Callable[[Path], list[Path]]

    def to_frame(self) -> "pandas.DataFrame":
        """One row per measurement: layer, head, quantity, estimate, low, high, level, n, unit, p_value, q_value ..."""
        import pandas

        return pandas.DataFrame(self.rows)

    def to_dict(self) -> dict[str, Any]:
        return {"title": self.title, "verdict": self.verdict, "rows": self.rows}

    def to_xarray(self) -> "xarray.Dataset":
        """The probe's arrays (profiles, maps, shares) with named axes, as ``--npz`` writes them."""
        try:
            import xarray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ConfigError("to_xarray() needs xarray", hint="pip install 'attnprobe[xarray]'") from error
        if not hasattr(self.result, "arrays"):
            raise ConfigError(f"{self.title}: there are rows only, no arrays", hint="to_frame() has them")
        arrays = dict(self.result.arrays())
        axes = parse_json(str(arrays.pop("axes")))
        along = {name: array for name, array in arrays.items() if axes.get(name) == [name]}
        return xarray.Dataset({name: (axes[name], arrays[name]) for name in axes if name not in along}, coords=along)

    def plot(self, name: str | Path | None = None) -> "list[Path] | Pictures":
        """Draw ``name``.png and .pdf (or the one file that ``name`` says) and return what was written; without a name
        the pictures themselves, which a notebook shows.
        """
        if name is not None:
            return self.draw(Path(name))
        with tempfile.TemporaryDirectory() as folder:
            written = self.draw(Path(folder) / "figure.png")
            return Pictures([path.read_bytes() for path in written])

    def __repr__(self) -> str:
        return f"{self.title}: {len(self.rows)} rows\n{self.verdict}"

    def _repr_html_(self) -> str:
        more = f"<p>{len(self.rows) - SHOWN} more rows: to_frame()</p>" if len(self.rows) > SHOWN else ""
        table = self.to_frame().head(SHOWN).to_html(index=False, float_format="%.3g", na_rep="", border=0)
        return f"<b>{html.escape(self.title)}</b><p>{html.escape(self.verdict)}</p>{table}{more}"


class Pictures(list[bytes]):
    """PNG files in memory."""

    def __repr__(self) -> str:
        return f"{len(self)} picture{'' if len(self) == 1 else 's'}"

    def _repr_png_(self) -> bytes | None:
        return self[0] if len(self) == 1 else None

    def _repr_html_(self) -> str | None:
        if len(self) == 1:
            return None
        return "".join(f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}">' for png in self)
