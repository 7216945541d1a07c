"""Different images only, and the split of each by the hash of its pixels.

Legend: N images, C channels, H height, W width.

    h = sha256(pixels): its first 64 bits, as a number in [0, 1), decide the split; the next 64 bits decide who stays when
    fewer images are wanted. Both depend on the image alone, so images that come later move none of the earlier ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from pipeline.errors import DataError
from stages.common.images.grid import SPLITS, Split
from stages.image.dataset.gates import Gates, Sample

MAX_BYTES = 4 << 30
"""All images together, as arrays; later stages hold them in memory."""


class Distinct:
    """Takes images in any order and keeps one of each.

    Attributes:
        num_read: images that were given.
        num_copies: how many of them were equal to an earlier one.
    """

    def __init__(self, gates: Gates, max_images: int | None) -> None:
        self.num_read = self.num_copies = 0
        self._gates = gates
        self._max_images = max_images
        self._kept: dict[bytes, tuple[np.ndarray, str | None]] = {}
        self._first: dict[bytes, tuple[str, str | None]] = {}
        self._conflicts: set[bytes] = set()

    def add(self, sample: Sample) -> None:
        """Take one image.

        Raises:
            DataError: all images together are too large for the memory.
        """
        self.num_read += 1
        digest = hashlib.sha256(sample.image.tobytes()).digest()
        if digest in self._first:
            self.num_copies += 1
            self._compare(digest, sample)
            return
        self._first[digest] = (sample.place, sample.label)
        self._kept[digest] = (sample.image, sample.label)
        if self._max_images is not None and len(self._kept) >= 2 * self._max_images:
            self._prune()
        if len(self._kept) * sample.image.nbytes > MAX_BYTES:
            raise DataError(
                f"{len(self._kept):,} images of {'x'.join(map(str, sample.image.shape))} values pass the limit of "
                f"{MAX_BYTES >> 30} GiB; set a smaller 'size' with on_wrong_size=resize, or 'max_images'"
            )

    def _compare(self, digest: bytes, sample: Sample) -> None:
        place, label = self._first[digest]
        if label == sample.label or digest in self._conflicts:
            return
        self._conflicts.add(digest)
        self._gates.found("conflicting_label", sample.place, f"label '{sample.label}', but '{label}' as {place}")

    def _prune(self) -> None:
        # Images with conflicting labels keep their place until the end, so that the choice does not depend on the order.
        chosen = sorted(self._kept, key=_rank)[: self._max_images]
        self._kept = {digest: self._kept[digest] for digest in chosen}

    def images(self) -> dict[bytes, tuple[np.ndarray, str | None]]:
        """Return digest -> (image, label) of what stays, sorted by digest."""
        if self._max_images is not None:
            self._prune()
        return {digest: self._kept[digest] for digest in sorted(self._kept.keys() - self._conflicts)}


def _rank(digest: bytes) -> bytes:
    return digest[8:16]


def split_of(digest: bytes, *, validation: float, test: float) -> str:
    """Return the split of the image with this hash: test below `test`, validation in the next part, else train."""
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < test:
        return "test"
    return "validation" if place < test + validation else "train"


def make_splits(
    images: Mapping[bytes, tuple[np.ndarray, str | None]], classes: Sequence[str], *, validation: float, test: float
) -> dict[str, Split]:
    """Return the splits, each in the order of the hashes; a label is the place of its class in `classes`, -1 for none."""
    members: dict[str, list[tuple[np.ndarray, str | None]]] = {name: [] for name in SPLITS}
    for digest, member in images.items():
        members[split_of(digest, validation=validation, test=test)].append(member)
    number: dict[str | None, int] = {name: place for place, name in enumerate(classes)} | {None: -1}
    shape = next(iter(images.values()))[0].shape
    return {
        name: Split(
            torch.from_numpy(np.stack([image for image, _ in found]) if found else np.zeros((0, *shape), dtype=np.uint8)),
            torch.tensor([number[label] for _, label in found], dtype=torch.int64),
        )
        for name, found in members.items()
    }
