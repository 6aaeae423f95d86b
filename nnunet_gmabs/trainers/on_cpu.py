"""What makes 3D networks train faster on a CPU in single precision: the same numbers, but for rounding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SLOW_SIZE = 20_480
"""A lone sample whose channels x first two spatial lengths are no more goes to a slow convolution of torch's own
(use_mkldnn in torch's aten/src/ATen/native/Convolution.cpp); two samples never do."""


class Conv3dInHalves(nn.Conv3d):
    """nn.Conv3d that takes a lone small sample as a batch of two: its halves along the first side, which overlap."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Shapes as nn.Conv3d: (B, C, X, Y, Z) to (B, K, X', Y', Z')."""
        if len(input) > 1 or input.shape[:4].numel() > SLOW_SIZE:
            return super().forward(input)
        step, (margin, *margins) = self.stride[0], (int(p) for p in self.padding)
        reach = self.dilation[0] * (self.kernel_size[0] - 1) + 1  # planes of the input that one of the output sees
        planes = (input.shape[2] + 2 * margin - reach) // step + 1
        half = (planes + 1) // 2
        padded = nn.functional.pad(input, (0, 0, 0, 0, margin, margin))
        length = (half - 1) * step + reach
        halves = torch.cat([padded.narrow(2, start, length) for start in (0, (planes - half) * step)])
        first, second = nn.functional.conv3d(
            halves, self.weight, self.bias, self.stride, (0, *margins), self.dilation, self.groups
        ).split(1)
        return torch.cat([first, second[:, :, 2 * half - planes :]], dim=2)


def make_faster_on_cpu(network: nn.Module) -> None:
    """Change the 3D convolutions in place: weights with channels last, and lone samples.

    Names, shapes and values of weights stay. What it gives: docs/study.md.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
            module.to(memory_format=torch.channels_last_3d)
        if (
            type(module) is nn.Conv3d
            and max(module.kernel_size) > 1
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        ):
            module.__class__ = Conv3dInHalves
