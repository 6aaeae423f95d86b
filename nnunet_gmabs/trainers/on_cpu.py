"""What makes 3D networks train faster on a CPU in single precision: the same numbers, but for rounding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SLOW_SIZE = 20_480
"""A lone sample whose channels x first two spatial lengths are no more goes to a slow convolution of torch's own
(use_mkldnn in torch's aten/src/ATen/native/Convolution.cpp); two samples never do."""


class Conv3dOfFew(nn.Conv3d):
    """nn.Conv3d that gives a lone small sample company, zeros, and takes their result away."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Shapes as nn.Conv3d: (B, C, X, Y, Z) to (B, K, X', Y', Z')."""
        alone = len(input) == 1 and input.shape[:4].numel() <= SLOW_SIZE and not torch.is_autocast_enabled("cpu")
        if not alone:
            return super().forward(input)
        return super().forward(torch.cat([input, torch.zeros_like(input)]))[:1]


def make_faster_on_cpu(network: nn.Module) -> None:
    """Change the 3D convolutions in place: weights with channels last, and lone samples.

    Names, shapes and values of weights stay. What it gives: docs/study.md.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
            module.to(memory_format=torch.channels_last_3d)
        if type(module) is nn.Conv3d and max(module.kernel_size) > 1:
            module.__class__ = Conv3dOfFew
