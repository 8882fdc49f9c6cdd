"""The list of peers and of the libraries that they need."""

import importlib.util

from attnprobe.bench.libraries import BertTrainer, LightningLoop, make_x_transformers
from attnprobe.bench.peers import Maker, make_compiled, make_ours, make_plain

ENTRIES: dict[str, Maker] = {
    "ours": make_ours,
    "ours again": make_ours,  # its ratio to the first entry is the noise floor
    "nn.TransformerEncoder + DataLoader": make_plain,
    "the same, torch.compile": make_compiled,
    "BertModel + Trainer": BertTrainer,
    "x-transformers": make_x_transformers,
    "Lightning": LightningLoop,
}

NEEDS: dict[str, tuple[str, ...]] = {
    "BertModel + Trainer": ("transformers", "accelerate"),
    "x-transformers": ("x_transformers",),
    "Lightning": ("lightning",),
}

GATED = ("nn.TransformerEncoder + DataLoader", "the same, torch.compile")  # these start from our weights


def installed() -> dict[str, Maker]:
    """The peers whose libraries are there."""
    found = {module: importlib.util.find_spec(module) is not None for needs in NEEDS.values() for module in needs}
    return {name: make for name, make in ENTRIES.items() if all(found[m] for m in NEEDS.get(name, ()))}
