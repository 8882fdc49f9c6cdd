"""Which rows of a foreign table of tokens stand for ours: characters, operators, grey levels.

The mapping is that of Amos et al. 2023 for Pythia: every character or grey level is looked up as a text of its own and
must be one token; <eos> and <unk> are the end of a text, <pad> is padding; operators of ListOps are letters, the
variant of their code that keeps one token per position (the other one splits them, which lengthens the sequence). With
new weights names mean nothing, and id i is row i.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.config import require
from attnprobe.errors import ArtifactError
from attnprobe.models.embeddings import Standardised
from attnprobe.models.parts import Initial, Part, normal
from attnprobe.tasks import Spec

LISTOPS = {"[MAX": "A", "[SM": "B", "[MED": "C", "[MIN": "D", "]": "X"}  # in its texts only
WITHOUT_NAMES = "use -s model.backbone.tokens=numbered or, for pixels, -s model.backbone.inputs=values"
PADDING = "<|padding|>"  # of Pythia, whose tokenizer does not say so


class TokenIds(Part):
    """Our ids -> rows of the table. A part of its own: they belong to the data, so no transfer carries them over."""

    rows: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.arange(count))

    def initial(self) -> Mapping[str, Initial]:
        return {"rows": lambda tensor, _: tensor.copy_(torch.arange(len(tensor)))}

    def forward(self, tokens: Tensor) -> Tensor:
        return self.rows[tokens.long()]


class ForeignTokens(Standardised):
    """Token ids or grey levels -> rows of the backbone's own table; a hidden position shows one learned vector."""

    def __init__(self, spec: Spec, table: nn.Embedding, std: float) -> None:
        super().__init__(spec)
        count = symbols(spec)
        message = f"has {table.num_embeddings} tokens, this task needs {count}"
        require(count <= table.num_embeddings, "model.backbone", message, "choose another one, or inputs='values'")
        self.ids = TokenIds(count)
        # without its padding token, whose row would never be trained: row i is any token here
        self.table = nn.Embedding(table.num_embeddings, table.embedding_dim)
        self.mask = nn.Parameter(torch.empty(table.embedding_dim))
        self.std_of_mask = std

    def initial(self) -> Mapping[str, Initial]:
        return {"mask": normal(self.std_of_mask)}

    def forward(self, inputs: Tensor, hidden: Tensor | None) -> Tensor:
        tokens = inputs[..., 0] if inputs.dim() == 3 else inputs
        x = self.table(self.ids(tokens))
        return x if hidden is None else torch.where(hidden[..., None], self.mask.to(x.dtype), x)


def symbols(spec: Spec) -> int:
    """How many different inputs a position can have."""
    found = spec.vocabulary if spec.is_tokens else spec.levels
    assert found is not None
    return found


def has_tokens(spec: Spec) -> bool:
    """Whether inputs are tokens, or grey levels that can be taken for some."""
    return spec.is_tokens or (spec.levels is not None and spec.channels == 1)


def named_rows(spec: Spec, tokenizer: Any, source: str) -> tuple[list[int], list[str]]:
    """The row of each of our ids, and those among our symbols that are no token there and become <unk>.

    ArtifactError if a grey level is no single token: pixels must not be mistaken for each other.
    """
    if not spec.is_tokens:
        rows = [single(tokenizer, str(level)) for level in range(symbols(spec))]
        if None in rows:
            message = f"the tokenizer of {source} has no single token for the grey level {rows.index(None)}"
            raise ArtifactError(message, hint=WITHOUT_NAMES)
        return [row for row in rows if row is not None], []
    require(spec.symbols is not None, "model.backbone.tokens", "cannot be 'named': this task does not name its tokens")
    assert spec.symbols is not None
    special = special_rows(tokenizer, source)
    renamed = LISTOPS if LISTOPS.keys() <= set(spec.symbols) else {}
    rows = [special[n] if n in special else single(tokenizer, renamed.get(n, n)) for n in spec.symbols]
    unknown = [n for n, row in zip(spec.symbols, rows, strict=True) if row is None and n not in special]
    return [special["<unk>"] if row is None else row for row in rows], unknown


def special_rows(tokenizer: Any, source: str) -> dict[str, int]:
    """Of the signs that are no characters. The mask has a vector of its own, so its row is never looked at."""
    ends = [tokenizer.eos_token_id, tokenizer.sep_token_id]
    end = next((row for row in ends if row is not None), None)
    if end is None:
        raise ArtifactError(f"the tokenizer of {source} has no sign for the end of a text", hint=WITHOUT_NAMES)
    padding = tokenizer.get_vocab().get(PADDING, tokenizer.pad_token_id)
    unknown = end if tokenizer.unk_token_id is None else tokenizer.unk_token_id
    return {"<eos>": end, "<pad>": end if padding is None else padding, "<unk>": unknown, "<mask>": end}


def single(tokenizer: Any, text: str) -> int | None:
    """The token that is exactly this text; None if there is none."""
    found = tokenizer.encode(text, add_special_tokens=False)
    if len(found) == 1 and found[0] != tokenizer.unk_token_id:
        return found[0]
    return tokenizer.get_vocab().get(text)
