"""How strongly each term of an objective pulls at the network."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter


def gradient_norms(
    terms: Mapping[str, Tensor], parameters: Sequence[Parameter], scale: float = 1.0
) -> dict[str, float]:
    """L2 norm of the gradient of each term by all parameters; the graph is kept for the backward pass.

    Args:
        terms: scalars. A term without a graph has norm 0.
        parameters: of the network.
        scale: factor during the backward pass (against underflow in float16), divided out again.
    """
    norms = {}
    for name, term in terms.items():
        if not term.requires_grad:
            norms[name] = 0.0
            continue
        gradients = torch.autograd.grad(term * scale, parameters, retain_graph=True, allow_unused=True)
        squares = [g.float().div(scale).pow(2).sum() for g in gradients if g is not None]
        norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return norms
