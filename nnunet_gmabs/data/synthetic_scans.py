"""Synthetic scans, made when a batch asks for one: an unlabelled scan with an exemplar's objects pasted into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnunet_gmabs.config import SyntheticConfig
from nnunet_gmabs.data.dataset import SparseDataset
from nnunet_gmabs.data.expert import decode
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.learning.objects import CutOut, cut_out_objects
from nnunet_gmabs.learning.synthesis import (
    ObjectTransform,
    draw_start,
    draw_transform,
    match_intensity,
    paste,
    transform_object,
    vary_intensity,
)

PREFIX = "synthetic/"  # no identifier has a slash: they are file names
MAX_LOCATIONS = 10_000  # as in expert files


class Overlay:
    """An array on disk with one box of it replaced; only what is asked for is read, and nothing written.

    Args:
        base: (channels, X, Y, Z), sliced like a numpy array.
        start: first voxel of the box.
        values: (channels, x, y, z) of the box.
        change: applied to what is read from base.
    """

    def __init__(
        self,
        base: Any,
        start: Sequence[int],
        values: np.ndarray,
        change: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.base, self.start, self.values, self.change = base, tuple(start), values, change
        self.shape, self.dtype, self.ndim = tuple(base.shape), base.dtype, len(base.shape)

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        crop = np.array(self.base[key])
        if self.change is not None:
            crop = self.change(crop)
        there, here = [slice(None)], [slice(None)]
        sizes = zip(key[1:], self.shape[1:], self.start, self.values.shape[1:], strict=True)
        for part, length, start, side in sizes:
            first, stop, _ = part.indices(length)
            low = max(first, start)
            high = max(low, min(stop, start + side))
            there.append(slice(low - first, high - first))
            here.append(slice(low - start, high - start))
        crop[tuple(there)] = self.values[tuple(here)]
        return crop


class SyntheticScans:
    """A data set in which "synthetic/NAME" is the scan NAME with objects of an exemplar in it, new at each call.

    Args:
        scans: the data set.
        exemplars: identifiers whose objects are cut out, now and once.
        settings: how they are pasted.
        spacing: of the training grid.
        in_plane: objects are moved and bent across axis 0 only.

    Raises:
        InputError: an exemplar shows no foreground.
    """

    def __init__(
        self,
        scans: SparseDataset,
        exemplars: Sequence[str],
        settings: SyntheticConfig,
        spacing: Sequence[float],
        in_plane: bool,
    ) -> None:
        self.scans, self.settings, self.spacing, self.in_plane = scans, settings, tuple(spacing), in_plane
        self.identifiers = scans.identifiers
        self.pseudo_labels = scans.pseudo_labels
        if scans.ignore_label is None:
            raise InputError("synthetic samples need the ignore label; add it to dataset.json and run gmabs prepare")
        self.unknown = int(scans.ignore_label)
        self.objects = {name: self._cut_out(name) for name in exemplars}

    def _cut_out(self, identifier: str) -> list[CutOut]:
        image, labels, _, _ = self.scans.load_case(identifier)
        drawn = decode(labels[:])[0]
        objects = cut_out_objects(image[:], drawn, self.unknown, self.settings.margin_voxels, self.spacing)
        if not objects:
            raise InputError(f"synthetic.exemplars: {identifier!r} shows no foreground; name another one")
        return objects

    def load_case(self, identifier: str):
        """As the data set's own; the same for synthetic scans, drawn from numpy's global state as nnU-Net's are."""
        if not identifier.startswith(PREFIX):
            return self.scans.load_case(identifier)
        seed = np.random.randint(0, 2**31, size=4)  # resuming restores that state, and workers seed it
        image, labels, pseudo, locations, _ = self.make(identifier.removeprefix(PREFIX), np.random.default_rng(seed))
        return image, labels, pseudo, {"class_locations": locations}

    def make(self, identifier: str, rng: np.random.Generator):
        """A synthetic scan.

        Args:
            identifier: of the scan whose image is the background.
            rng: the only source of randomness.

        Returns:
            image, labels (encoded as in expert files), pseudo labels (all unknown: what is known of the scan does not
            hold where something is pasted; None where the data set has none), class locations by nnU-Net's keys, and
            the box (first, stop) with everything that was pasted.
        """
        image, labels, pseudo, _ = self.scans.load_case(identifier)
        placed = self._draw_objects(image.shape, rng)
        start = np.min([first for first, _, _ in placed], 0)
        stop = np.max([np.add(first, cut.alpha.shape) for first, cut, _ in placed], 0)
        start, stop = np.maximum(start, 0), np.minimum(stop, labels.shape[1:])
        box = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        encoded = np.array(labels[(slice(None), *box)])
        before = decode(encoded)[0]
        pixels, drawn = np.array(image[(slice(None), *box)], np.float32), before
        for first, cut, transform in placed:
            pixels, drawn = self._paste(pixels, drawn, np.subtract(first, start), cut, transform)
        changed = drawn != before
        encoded[0][changed] = drawn[changed]
        dense = self.settings.elsewhere == "background" and all(cut.dense for _, cut, _ in placed)
        overlays = (
            Overlay(image, start, pixels),
            Overlay(
                labels,
                start,
                self._as_background(encoded) if dense else encoded,
                self._as_background if dense else None,
            ),
        )
        if pseudo is not None:
            pseudo = np.broadcast_to(np.int16(self.unknown), pseudo.shape)
        return *overlays, pseudo, self._locations(drawn, changed, start, rng), (start, stop)

    def _draw_objects(
        self, shape: Sequence[int], rng: np.random.Generator
    ) -> list[tuple[tuple[int, ...], CutOut, ObjectTransform]]:
        """Objects of one exemplar: where they go, transformed but for their intensities, and what was drawn."""
        s = self.settings
        objects = self.objects[list(self.objects)[rng.integers(len(self.objects))]]
        placed = []
        for number in rng.permutation(len(objects))[: s.max_objects]:
            cut = objects[number]
            size = np.multiply(cut.alpha.shape, self.spacing)
            drawn = draw_transform(
                rng, size, shape[0], s.rotation_degrees, s.scale, s.elastic, s.intensity, self.in_plane
            )
            cut = transform_object(cut, drawn, self.spacing, self.unknown)
            placed.append((draw_start(rng, cut, shape[1:], s.jitter, s.position == "anywhere"), cut, drawn))
        return placed

    def _paste(
        self, pixels: np.ndarray, drawn: np.ndarray, first: np.ndarray, cut: CutOut, transform: ObjectTransform
    ) -> tuple[np.ndarray, np.ndarray]:
        """The box with one object more; what of it is outside the scan is cut off."""
        low, high = np.maximum(first, 0), np.minimum(first + cut.alpha.shape, drawn.shape)
        if (high <= low).any():
            return pixels, drawn
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        inner = tuple(slice(a, b) for a, b in zip(low - first, high - first, strict=True))
        cut = CutOut(cut.image[(slice(None), *inner)], cut.labels[inner], cut.alpha[inner], cut.centre, cut.dense)
        cut = match_intensity(cut, pixels[(slice(None), *box)], self.settings.position == "anatomy")
        cut = vary_intensity(cut, transform)
        pixels, drawn = pixels.copy(), drawn.copy()
        pixels[(slice(None), *box)], drawn[box] = paste(pixels[(slice(None), *box)], drawn[box], cut, self.unknown)
        return pixels, drawn

    def _as_background(self, encoded: np.ndarray) -> np.ndarray:
        """Unknown voxels as background, inside and outside nnU-Net's nonzero mask."""
        inside = np.where(encoded == self.unknown, 0, encoded)
        return np.where(inside == -2 - self.unknown, -2, inside).astype(encoded.dtype)

    def _locations(
        self, drawn: np.ndarray, changed: np.ndarray, start: np.ndarray, rng: np.random.Generator
    ) -> dict[Any, Any]:
        """Pasted voxels by nnU-Net's keys: (n, 4) [0, x, y, z], or an empty list."""
        places = np.argwhere(changed)
        values = drawn[changed]
        locations: dict[Any, Any] = {}
        for key, group in self.scans.labels_by_key.items():
            found = places[np.isin(values, group)]
            if len(found) > MAX_LOCATIONS:
                found = found[np.sort(rng.choice(len(found), MAX_LOCATIONS, replace=False))]
            locations[key] = np.pad(found + start, ((0, 0), (1, 0))) if len(found) else []
        return locations
