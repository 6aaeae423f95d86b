"""All sources of randomness of a process: seeded together, saved and restored together."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def seed_everything(*entropy: int) -> None:
    """Seed python, numpy and torch (all devices) from any number of whole numbers."""
    for_python, for_numpy, for_torch = np.random.SeedSequence(entropy).generate_state(3).tolist()
    random.seed(for_python)
    np.random.seed(for_numpy)
    torch.manual_seed(for_torch)


def seed_of_rank(seed: int, rank: int) -> int:
    """A seed for a generator of one of several processes: the seed itself for the first one, others for the others.

    They differ in their lower 32 bits, of which alone torch's generator on a CPU is made.
    """
    return seed if rank == 0 else int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])


def capture(device: torch.device) -> dict[str, Any]:
    """The states of python's, numpy's and torch's generators, of types that weights_only loading accepts."""
    numpy = np.random.get_state(legacy=False)
    keys, position = numpy["state"]["key"], numpy["state"]["pos"]
    return {
        "python": random.getstate(),
        "numpy": (
            numpy["bit_generator"],
            torch.from_numpy(keys.astype(np.int64)),
            int(position),
            int(numpy["has_gauss"]),
            float(numpy["gauss"]),
        ),
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


def restore_generator(generator: torch.Generator, state: torch.Tensor) -> None:
    """Put a generator where get_state found it; one of another kind of device stays where it is."""
    if state.numel() == generator.get_state().numel():
        generator.set_state(state.cpu())
