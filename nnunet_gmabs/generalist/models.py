"""The frozen promptable models behind one protocol: encode a slice once, segment it with many prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nnunet_gmabs.config import GeneralistConfig
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.generalist.prompts import Prompt

Answer = tuple[np.ndarray, np.ndarray]
"""Masks (N, H, W) bool and their predicted quality (N,) float32 in [0, 1], one for each prompt."""


class Generalist(Protocol):
    """A model that segments what a prompt points at, whatever it is; never trained further.

    A slice is (H, W, 3) uint8 with square pixels. An embedding is a float16 array for models with an encoder; the
    others return the slice itself and say has_encoder = False, so that nothing is cached.
    """

    name: str
    """As in the settings."""
    weights_hash: str
    """SHA-256 of the weights, or what else decides the answers: part of a cache's key."""
    has_encoder: bool
    """Whether embeddings are worth keeping."""
    wants_neighbours: bool
    """Whether red, green and blue of a slice are previous slice, slice and next slice, or three times the slice."""

    def encode(self, slice_2d: np.ndarray) -> np.ndarray:
        """The embedding of one slice."""
        ...

    def encode_many(self, slices: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Embeddings of several slices, of any sizes, in as few calls of the encoder as fit."""
        ...

    def segment(self, embedding: np.ndarray, prompts: Sequence[Prompt]) -> Answer:
        """One mask for each prompt; none for none, (0, H, W) and (0,)."""
        ...

    def segment_many(self, items: Sequence[tuple[np.ndarray, Sequence[Prompt]]]) -> list[Answer]:
        """Several embeddings, each with its prompts, at once."""
        ...


def load_generalist(config: GeneralistConfig, device: Any = "cpu") -> Generalist:
    """A generalist, ready to be asked. Nothing is ever downloaded.

    Args:
        config: which one, with which weights.
        device: torch device that computes.

    Raises:
        InputError: unknown name; weights missing, damaged or of another model; a package that is not installed.
    """
    path = None if config.checkpoint is None else Path(config.checkpoint)
    if config.name == "embedded":
        from nnunet_gmabs.generalist.embedded import EmbeddedGeneralist

        return EmbeddedGeneralist(path, device)
    if config.name == "walker":
        from nnunet_gmabs.generalist.walker import WalkerGeneralist

        return WalkerGeneralist()
    if config.name in ("sam", "mobile_sam"):
        from nnunet_gmabs.generalist.sam import load_sam

        model_type = "vit_t" if config.name == "mobile_sam" else config.model_type
        return load_sam(model_type, path, device, config.second_pass, config.slices_at_once)
    raise InputError(f"generalist {config.name!r} is unknown; valid are embedded, walker, sam and mobile_sam")
