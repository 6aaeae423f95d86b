"""torch.compile for networks that see several kinds of batches, and have several backward passes a forward pass."""

from __future__ import annotations

VERSIONS = 32  # of one network that torch may compile


def keep_saved_for_backward() -> None:
    """What a compiled forward pass saves stays until its graph is gone; call this before networks are compiled.

    And a network may be compiled more often than torch's eight times: for training, validation and a teacher's passes,
    with batches of labelled, unlabelled and both kinds of samples. Beyond its limit torch runs it uncompiled.

    Torch (from 2.6 on) lets the backward pass overwrite it, unless that was first asked to retain the graph. Code that
    was made in another step, or found in the cache that another training has left (stock nnU-Net's, too), refuses to
    retain it later, as each epoch's first step does (learning/gradients.py).
    """
    from torch._dynamo import config as dynamo
    from torch._functorch import config

    if hasattr(config, "donated_buffer"):
        config.donated_buffer = False
    if hasattr(dynamo, "recompile_limit"):
        dynamo.recompile_limit = max(dynamo.recompile_limit, VERSIONS)
