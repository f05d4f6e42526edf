"""Memory that a forward pass without gradients uses again and again."""

from __future__ import annotations

from torch import Tensor


class Room:
    """Buffers by name, as large as their largest use so far.

    The system hands out fresh memory page by page, on first touch: writing a new output of 9 MB took half as long
    again as the product that it is the result of.
    """

    def __init__(self) -> None:
        self._flat: dict[str, Tensor] = {}

    def take(self, name: str, like: Tensor, width: int) -> Tensor:
        """An uninitialised array [..., width] beside ``like`` [..., m], of its dtype.

        It lasts until the same name is taken again.
        """
        shape = (*like.shape[:-1], width)
        size = like.shape[:-1].numel() * width
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size or flat.dtype != like.dtype or flat.device != like.device:
            flat = self._flat[name] = like.new_empty(size)
        return flat[:size].view(shape)
