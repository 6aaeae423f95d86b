"""How strongly each term of an objective pulls at the network."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from nnunet_gmabs.learning.losses import Total, alone


def gradient_norms(
    terms: Mapping[str, Tensor], parameters: Sequence[Parameter], scale: float = 1.0, total: Total = alone
) -> dict[str, float]:
    """L2 norm of the gradient of each term by all parameters; the graph is kept for the backward pass.

    Args:
        terms: scalars. A term without a graph has norm 0.
        parameters: of the network.
        scale: factor during the backward pass (against underflow in float16), divided out again. One that suits the
            weighted terms may be too large for terms without their weights: pass them weighted.
        total: see learning/losses.py; all processes ask for the same terms.
    """
    norms = {}
    for name, term in terms.items():
        if not term.requires_grad:
            norms[name] = 0.0
            continue
        gradients = torch.autograd.grad(term * scale, parameters, retain_graph=True, allow_unused=True)
        if total is not alone:  # another process may have what this one's samples do not reach
            gradients = tuple(
                torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)
            )
        squares = [total(g.float()).div(scale).pow(2).sum() for g in gradients if g is not None]
        norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return norms


def gradient_ratios(norms: Mapping[str, float]) -> dict[str, float]:
    """Norm of each other term's gradient over that of the supervised one; NaN where that is 0 or not finite.

    Args:
        norms: of the weighted terms, "supervised" among them.
    """
    reference = norms["supervised"]
    known = math.isfinite(reference) and reference > 0
    return {name: norm / reference if known else math.nan for name, norm in norms.items() if name != "supervised"}
