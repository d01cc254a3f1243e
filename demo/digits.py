"""Images of handwritten digits for the demonstration: scikit-learn's 1,797 real ones of 8 x 8 points, or MNIST."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

TEST_SHARE = 6
"""One of so many images is public, to test with."""
_IMAGES, _LABELS = 0x803, 0x801
"""Magic numbers of MNIST's IDX files: unsigned bytes in three axes, and in one."""
_NAMES = (("images", "labels"), ("x_train", "y_train"))


class DigitsError(Exception):
    """A file that holds no digits."""


@dataclass(frozen=True)
class Digits:
    """`images` is float32 [digits, height, width] from 0 to 1; `labels` is int64 [digits]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, part: Tensor) -> Digits:
        return Digits(self.images[part], self.labels[part])


def load(mnist: Path | None = None) -> Digits:
    """All digits: scikit-learn's, or those of a file in MNIST's IDX form (its labels beside it) or an npz archive.

    Raises DigitsError for a file that is not there or holds none.
    """
    if mnist is None:
        # Takes a second to import, which nobody who brings other digits should wait for.
        from sklearn.datasets import load_digits

        found = load_digits()
        images, labels = found.images, found.target
    else:
        try:
            mnist.stat()
            images, labels = _npz(mnist) if mnist.suffix == ".npz" else _idx(mnist)
        except FileNotFoundError as error:
            raise DigitsError(f"There is no file {error.filename}.") from None
        except (OSError, ValueError, KeyError, struct.error) as error:
            raise DigitsError(f"{mnist} is neither an npz archive with images and labels nor IDX: {error}") from error
        if images.ndim != 3 or labels.shape != images.shape[:1] or not len(labels):
            raise DigitsError(f"{mnist} has images of shape {images.shape} and labels of shape {labels.shape}.")
    highest = 16 if mnist is None else 255
    return Digits(torch.from_numpy(images / highest).float(), torch.from_numpy(labels.astype(np.int64)))


def split(digits: Digits, owners: int) -> tuple[list[Digits], Digits]:
    """A part for each owner, dealt out one by one, and one in six that are public, to test with."""
    numbers = torch.arange(len(digits))
    test = numbers % TEST_SHARE == TEST_SHARE - 1
    dealt = numbers[~test]
    return [digits[dealt[first::owners]] for first in range(owners)], digits[test]


def _npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        for images, labels in _NAMES:
            if images in archive and labels in archive:
                return archive[images], archive[labels]
        raise ValueError(f"it holds {', '.join(archive)}; images and labels are wanted")


def _idx(path: Path) -> tuple[np.ndarray, np.ndarray]:
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if beside == path:
        raise ValueError("name the file of images, with 'images' in its name; that of labels lies beside it")
    return _array(path, _IMAGES), _array(beside, _LABELS)


def _array(path: Path, magic: int) -> np.ndarray:
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    axes = magic & 0xFF
    found, *shape = struct.unpack_from(f">{1 + axes}I", data)
    if found != magic:
        raise ValueError(f"{path.name} begins with {found:#x}, not with {magic:#x}")
    return np.frombuffer(data, np.uint8, offset=4 * (1 + axes)).reshape(shape)
