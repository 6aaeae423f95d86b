"""All sources of randomness of a process: seeded together, saved and restored together."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def seed_everything(*entropy: int) -> None:
    """Seed python, numpy and torch (all devices) from any number of whole numbers."""
    for seed, value in zip(
        (random.seed, np.random.seed, torch.manual_seed),
        np.random.SeedSequence(entropy).generate_state(3).tolist(),
        strict=True,
    ):
        seed(value)


def capture(device: torch.device) -> dict[str, Any]:
    """The states of python's, numpy's and torch's generators, of types that weights_only loading accepts."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore(state: dict[str, Any], device: torch.device) -> None:
    """Put all generators where capture found them; a state of another kind of device keeps the device's own."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
