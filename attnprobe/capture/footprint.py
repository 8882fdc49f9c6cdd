"""How many bytes a call needs, measured while it runs."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(call: Callable[[], Any]) -> int:
    """The most bytes that tensors made by ``call`` held at once, between any two of its operations.

    Backward passes are seen if they run inside. What an operation takes only while it runs is not.
    """
    with LiveBytes() as live:
        call()
    return live.peak


class LiveBytes(TorchDispatchMode):
    """Follows every storage that an operation makes until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: list[tuple[StorageWeakRef, int]] = []
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {address(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        self._alive = [(ref, size) for ref, size in self._alive if not ref.expired()]
        self._known = {ref.cdata for ref, _ in self._alive}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and address(leaf) not in given | self._known:  # a view makes nothing
                storage = leaf.untyped_storage()
                self._alive.append((StorageWeakRef(storage), storage.nbytes()))
                self._known.add(address(leaf))
        self.peak = max(self.peak, sum(size for _, size in self._alive))
        return result


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
