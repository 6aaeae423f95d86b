"""The slices of all views of all scans, encoded before they are asked for: rounds then only read."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.generalist.embeddings import EmbeddingCache
from nnunet_gmabs.generalist.images import ScanImages
from nnunet_gmabs.generalist.relabel import Relabeller
from nnunet_gmabs.generalist.views import view_axes

Progress = Callable[[Sequence[str]], Iterable[str]]
FEW = 8  # slices that are timed before an estimate is given


@dataclass
class EmbedAhead:
    """Fills the cache of a relabeller, whose rounds find there what is encoded here.

    Args:
        relabeller: with a generalist that has an encoder, and a cache.
        shape: identifier -> (X, Y, Z), without reading the voxels.
        slices_at_once: that the encoder is given.
        say: gets lines for a person.

    Attributes:
        seen: slices that are in the cache now, as far as this part has come.
        encoded: slices that were not there, and were encoded.
    """

    relabeller: Relabeller
    shape: Callable[[str], Sequence[int]]
    slices_at_once: int
    say: Callable[[str], object]
    seen: int = 0
    encoded: int = 0
    _seconds: list[float] = field(default_factory=list)
    _estimated: bool = False

    @property
    def cache(self) -> EmbeddingCache:
        """Of the relabeller."""
        assert self.relabeller.cache is not None
        return self.relabeller.cache

    @property
    def axes(self) -> list[int]:
        """Of the views that a round may show the generalist."""
        return view_axes(self.relabeller.scans.spacing_mm, self.relabeller.settings.views)

    def slices(self, identifiers: Sequence[str]) -> int:
        """Of all views of some scans."""
        return sum(self.shape(identifier)[axis] for identifier in identifiers for axis in self.axes)

    def run(self, identifiers: Sequence[str], part: slice = slice(None), progress: Progress = iter) -> None:
        """Encode what is missing of a part; what is there is not encoded again.

        Args:
            identifiers: all scans that are to be embedded, whoever does it.
            part: of them, that is done here.
            progress: wraps the scans, for a progress bar.

        Raises:
            InputError: the settings, or the disk, leave too little room; what is encoded stays.
        """
        mine = list(identifiers)[part]
        self.say(
            f"{self.slices(identifiers)} slices of {len(identifiers)} scans, views along axes "
            f"{', '.join(map(str, self.axes))}; in this part {self.slices(mine)} slices of {len(mine)} scans"
        )
        if mine:
            self.check_room(self.slices(identifiers), self.bytes_of_one(mine[0]))
        for identifier in progress(mine):
            images = self.relabeller.images(identifier)
            for axis, indices in self.missing(images):
                self.encode(images, axis, indices)
                self.estimate(self.slices(mine))

    def bytes_of_one(self, identifier: str) -> int:
        """Size of an embedding, which is found by encoding the first slice of a scan (or reading it)."""
        images = self.relabeller.images(identifier)
        embeddings, encoded = self.relabeller.encode(images)(self.axes[0], [0])
        self.encoded += encoded
        return embeddings[0].nbytes

    def check_room(self, slices: int, size: int) -> None:
        """Say how much disk so many embeddings take; raise InputError where the settings do not allow it."""
        cache, whole = self.cache, slices * size
        own = cache.bytes - cache.others
        self.say(
            f"{size / 2**20:.3g} MiB each, at most {whole / 2**30:.3g} GiB in all; "
            f"{own / 2**30:.3g} GiB are there, in {cache.folder}"
        )
        needed = (whole + cache.others) / 2**30
        if needed > cache.limit_bytes / 2**30:
            raise InputError(
                f"{cache.root}: may hold {cache.limit_bytes / 2**30:.3g} GiB (generalist.cache_gib), too little for "
                f"{needed:.3g} GiB; set it to {1.01 * needed + 0.1:.1f}, or leave it to "
                "the rounds, which encode only slices with a prompt"
            )
        free = shutil.disk_usage(cache.folder).free - cache.keep_free_bytes
        if whole - own > free:
            self.say(f"WARNING: {cache.root}: {max(free, 0) / 2**30:.3g} GiB are free there; that may be too little")

    def missing(self, images: ScanImages) -> Iterator[tuple[int, list[int]]]:
        """(axis, indices) of the slices of one scan that are not in the cache, some at a time."""
        for axis in self.axes:
            number = images.bytes.shape[axis]
            left = [index for index in range(number) if not self.cache.holds(images.slice(axis, index))]
            self.seen += number - len(left)
            for start in range(0, len(left), self.slices_at_once):
                yield axis, left[start : start + self.slices_at_once]

    def encode(self, images: ScanImages, axis: int, indices: list[int]) -> None:
        """Encode and keep some slices, as a round does."""
        start, refused = time.monotonic(), self.cache.refused
        _, encoded = self.relabeller.encode(images)(axis, indices)
        self.encoded, self.seen = self.encoded + encoded, self.seen + len(indices)
        self._seconds += [(time.monotonic() - start) / len(indices)] * len(indices)
        if self.cache.refused > refused:
            raise InputError(
                f"{self.cache.root}: no more room, by generalist.cache_gib or on the disk; what is encoded stays. "
                "Make room and run again"
            )

    def estimate(self, slices: int) -> None:
        """Say once, after a few slices, how long the rest of a part will take at most."""
        if self._estimated or len(self._seconds) < FEW:
            return
        self._estimated = True
        each = sum(self._seconds) / len(self._seconds)
        left = slices - self.seen
        self.say(f"{each:.3g} s a slice: at most {duration(each * left)} for the {left} slices that are left")


def duration(seconds: float) -> str:
    """In the unit that suits it.

    >>> duration(50), duration(3000), duration(40000)
    ('50 s', '50 min', '11.1 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
