"""What is known about a value without having it: shape, strides and dtype."""

from __future__ import annotations

import weakref
from typing import ClassVar

import torch

from gridclient.program.graph import Dtype
from gridclient.wire.tensors import ITEM_SIZES

DTYPES: dict[torch.dtype, Dtype] = {getattr(torch, name): Dtype(name) for name in ITEM_SIZES}
"""The dtypes that travel, with their names on the wire."""


class Spec:
    """Shape, strides (in elements) and dtype. One object per combination, so that specs compare by identity."""

    __slots__ = ("__weakref__", "_meta", "contiguous", "dtype", "shape", "stride")
    _known: ClassVar[weakref.WeakValueDictionary[tuple[object, ...], Spec]] = weakref.WeakValueDictionary()

    def __init__(self, shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape = shape
        self.stride = stride
        self.dtype = dtype
        self.contiguous = self.lies_as(contiguous_stride(shape))
        self._meta: torch.Tensor | None = None

    @classmethod
    def of(cls, shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> Spec:
        """The one spec with these properties."""
        key = (shape, stride, dtype)
        spec = cls._known.get(key)
        if spec is None:
            spec = cls._known[key] = cls(shape, stride, dtype)
        return spec

    @classmethod
    def of_tensor(cls, tensor: torch.Tensor) -> Spec:
        return cls.of(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)

    @classmethod
    def dense(cls, shape: tuple[int, ...], dtype: torch.dtype) -> Spec:
        """A contiguous value of this shape."""
        return cls.of(shape, contiguous_stride(shape), dtype)

    @property
    def meta(self) -> torch.Tensor:
        """A tensor without storage of this shape, these strides and this dtype; never to be resized."""
        if self._meta is None:
            self._meta = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")
        return self._meta

    @property
    def overlaps(self) -> bool:
        """Whether several elements share one place in memory (an expanded tensor)."""
        return any(extent > 1 and step == 0 for extent, step in zip(self.shape, self.stride, strict=True))

    def lies_as(self, stride: tuple[int, ...]) -> bool:
        """Whether elements lie in memory as with `stride`; the stride of an axis of one element means nothing."""
        if 0 in self.shape:
            return True
        steps = zip(self.shape, self.stride, stride, strict=True)
        return all(mine == other for extent, mine, other in steps if extent != 1)


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a contiguous tensor, as torch gives them."""
    stride: list[int] = []
    step = 1
    for extent in reversed(shape):
        stride.append(step)
        step *= max(extent, 1)
    return tuple(reversed(stride))
