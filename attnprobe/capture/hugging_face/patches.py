"""Images as the patches that a vision model makes of them, row by row: positions on a grid."""

import dataclasses
from typing import Any, Self

from torch import Tensor

from attnprobe.capture.watching.inputs import Inputs
from attnprobe.errors import NotApplicableError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patches:
    size: tuple[int, int]  # of a patch: height and width in pixels
    grid: tuple[int, int]  # height and width of the image in patches; what is left of it is seen by none

    @classmethod
    def of(cls, config: Any, pixels: Tensor) -> Self:
        """pixels (image, channel, height, width). NotApplicableError if the model does not say how large they are."""
        size = getattr(getattr(config, "vision_config", config), "patch_size", None)
        if not isinstance(size, int | list | tuple):
            raise NotApplicableError(
                "this model does not say how large its patches are, so its positions are on no known grid",
                hint="give them to ap.watch(model, batches, grid=(height, width))",
            )
        height, width = (size, size) if isinstance(size, int) else size
        return cls(size=(height, width), grid=(pixels.shape[-2] // height, pixels.shape[-1] // width))

    @property
    def number(self) -> int:
        return self.grid[0] * self.grid[1]

    def split(self, pixels: Tensor) -> Tensor:
        """(image, channel, height, width) -> (image, patch, values)."""
        (high, wide), (rows, columns) = self.size, self.grid
        covered = pixels[..., : rows * high, : columns * wide]
        parts = covered.unflatten(3, (columns, wide)).unflatten(2, (rows, high)).permute(0, 2, 4, 1, 3, 5)
        return parts.flatten(3).flatten(1, 2)

    def joined(self, values: Tensor, pixels: Tensor) -> Tensor:
        """The inverse of ``split``; pixels of no patch as they are in ``pixels``."""
        (high, wide), (rows, columns) = self.size, self.grid
        parts = values.unflatten(2, (-1, high, wide)).unflatten(1, (rows, columns)).permute(0, 3, 1, 4, 2, 5)
        whole = pixels.clone()
        whole[..., : rows * high, : columns * wide] = parts.flatten(4).flatten(2, 3)
        return whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchInputs(Inputs):
    """Images under ``pixel_values``, whose positions are patches."""

    patches: Patches

    def reordered(self, order: Tensor, *, leading: int) -> "PatchInputs":
        """The patches of every image in another order."""
        pixels = self.kwargs["pixel_values"]
        moved = self.patches.joined(self.patches.split(pixels)[:, order.to(pixels.device)], pixels)
        return dataclasses.replace(self, kwargs=self.kwargs | {"pixel_values": moved})
