"""torch.compile where one forward pass has several backward passes."""

from __future__ import annotations


def keep_saved_for_backward() -> None:
    """What a compiled forward pass saves stays until its graph is gone; call this before networks are compiled.

    Torch (from 2.6 on) lets the backward pass overwrite it, unless that was first asked to retain the graph. Code that
    was made in another step, or found in the cache that another training has left (stock nnU-Net's, too), refuses to
    retain it later, as each epoch's first step does (learning/gradients.py).
    """
    from torch._functorch import config

    if hasattr(config, "donated_buffer"):
        config.donated_buffer = False
