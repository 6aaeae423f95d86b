"""The network of the `embedded` generalist: a small U-Net on crops that corrects a prior."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import replace_atomically

CROP_SIZE = 48
"""Side of a crop in pixels: most structures keep their native resolution, and a crop costs 1.6 ms on one core."""
CHANNELS = 8
"""Previous slice, slice, next slice, inside the box, positive points, negative points, prior, what is known of it."""
PRIOR_LIMIT = 0.01
"""Priors are clipped to [0.01, 0.99] before their logit is taken: a sure specialist can still be overruled."""
DISC_SD = 1.5
"""Points are drawn as Gaussian discs of this standard deviation, in pixels of the crop."""


class Block(nn.Module):
    """Two 3 x 3 convolutions with group norm, and a way around them."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(channels_out // 8, channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(channels_out // 8, channels_out)
        same = channels_in == channels_out
        self.around = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, H, W)."""
        y = functional.relu(self.first_norm(self.first(x)), inplace=True)
        return functional.relu(self.second_norm(self.second(y)) + self.around(x), inplace=True)


class EmbeddedNetwork(nn.Module):
    """Mask logits z = gain * logit(prior) + change, and the logit of the mask's expected IoU.

    gain starts at 1 and change at 0, so that an untrained network returns the prior: what it learns
    is where to leave it. Without a prior, logit(prior) is 0.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96)) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([Block(a, b) for a, b in zip((CHANNELS, *widths[:-1]), widths, strict=True)])
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.reduce = nn.ModuleList([nn.Conv2d(below, here, 1) for here, below in pairs])
        self.decoder = nn.ModuleList([Block(here, here) for here, _ in pairs])
        self.mask_head = nn.Conv2d(widths[0], 2, 1)
        self.quality_head = nn.Sequential(nn.Linear(widths[-1] + widths[0] + 1, 32), nn.ReLU(), nn.Linear(32, 1))
        for parameter in self.mask_head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mask and quality of crops.

        Args:
            x: (B, 8, S, S) as network_input makes it; S a multiple of 8.

        Returns:
            Mask logits (B, S, S) and quality logits (B,), float32.
        """
        prior = torch.logit(x[:, 6].float().clamp(PRIOR_LIMIT, 1 - PRIOR_LIMIT)) * (x[:, 7] > 0)
        levels = []
        for depth, block in enumerate(self.encoder):
            x = block(functional.max_pool2d(x, 2) if depth else x)
            levels.append(x)
        deepest = x
        for level, reduce, block in zip(levels[-2::-1], self.reduce[::-1], self.decoder[::-1], strict=True):
            x = block(level + functional.interpolate(reduce(x), scale_factor=2.0, mode="nearest"))
        change, gain = self.mask_head(x).float().unbind(1)
        logits = (1 + gain) * prior + change
        return logits, self._quality(deepest, x, logits.detach())

    def _quality(self, deepest: Tensor, finest: Tensor, logits: Tensor) -> Tensor:
        """From the means of the deepest features, of the finest ones within the mask, and how sure the mask is."""
        inside = torch.sigmoid(logits)
        weight = inside / (inside.sum((1, 2), keepdim=True) + 1)
        pooled = (finest.float() * weight[:, None]).sum((2, 3))
        sure = (2 * inside - 1).abs().mean((1, 2))[:, None]
        return self.quality_head(torch.cat([deepest.float().mean((2, 3)), pooled, sure], 1))[:, 0]


def network_input(
    slices: Tensor, prior: Tensor, prior_flag: Tensor, boxes_xyxy: Tensor, points_xy: Tensor, point_labels: Tensor
) -> Tensor:
    """The eight channels of the network.

    Args:
        slices: (B, 3, S, S) grey values of previous slice, slice and next slice, any scale.
        prior: (B, S, S) in [0, 1].
        prior_flag: (B,) 0: there is no prior; 1: a prior of unknown quality; 1 + d: a prior from a specialist whose
            Dice on whole scans is about d.
        boxes_xyxy: (B, 4) in pixels of the crop, inclusive.
        points_xy: (B, N, 2) in pixels of the crop.
        point_labels: (B, N): 1 inside, 0 outside, -1 no point.

    Returns:
        (B, 8, S, S) float32; the slices with mean 0 and standard deviation 1 of the middle one.
    """
    size = slices.shape[-1]
    middle = slices[:, 1]
    mean = middle.mean((1, 2))[:, None, None, None]
    sd = middle.std((1, 2), correction=0)[:, None, None, None]
    grey = ((slices - mean) / sd.clamp(min=4.0)).clamp(-5, 5)  # a constant crop stays constant, at 0
    places = torch.arange(size, dtype=torch.float32, device=slices.device)
    low, high = boxes_xyxy[:, :2, None] - 0.5, boxes_xyxy[:, 2:, None] + 0.5  # (B, 2, 1): edges of the outermost pixels
    covered = (torch.minimum(places + 0.5, high) - torch.maximum(places - 0.5, low)).clamp(0, 1)
    box = covered[:, 1, :, None] * covered[:, 0, None, :]
    bumps = torch.exp(-((places - points_xy[..., None]) ** 2) / (2 * DISC_SD**2))  # (B, N, 2, S)
    discs = bumps[:, :, 1, :, None] * bumps[:, :, 0, None, :]
    inside, outside = (
        (discs * (point_labels == label)[:, :, None, None]).amax(1) if discs.shape[1] else torch.zeros_like(box)
        for label in (1, 0)
    )
    flag = prior_flag.to(torch.float32)[:, None, None].expand_as(box)
    return torch.cat([grey, torch.stack([box, inside, outside, prior * (flag > 0), flag], 1)], 1)


def save_network(network: EmbeddedNetwork, path: Path) -> None:
    """Write the weights as .safetensors in float16, atomically."""
    tensors = {name: value.detach().half().contiguous() for name, value in network.state_dict().items()}
    replace_atomically(path, lambda temporary: save_file(tensors, temporary))


def load_network(path: Path) -> EmbeddedNetwork:
    """A network in float32, for inference, from save_network's file.

    Raises:
        InputError: the file is missing, damaged, or holds another network.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; it comes with the package, or from scripts/train_embedded_generalist.py"
        )
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable .safetensors file ({error}); copy or train it again") from error
    network = EmbeddedNetwork()
    try:
        network.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        raise InputError(f"{path}: not the weights of the embedded generalist; {error}") from error
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
