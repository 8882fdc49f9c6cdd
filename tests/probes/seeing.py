"""Who sees whom, pair by pair, as the definition says it."""

from attnprobe.scores.layout import Layout


def sees(layout: Layout, query: int, key: int) -> bool:
    """Whether the query sees the key, padding aside."""
    near = layout.window is None or abs(query - key) <= layout.window
    near &= layout.block is None or abs(query // layout.block - key // layout.block) <= 1
    return near and (key <= query or not layout.causal) and (layout.self_pairs or key != query)
