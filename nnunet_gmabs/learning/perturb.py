"""Perturbed copies of images: drawn with an explicit generator, applied out of place."""

import torch
from torch import Tensor


def draw_noise(image: Tensor, sd: float, limit: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise of the image's shape, clipped to [-limit, limit], on the image's device."""
    noise = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
    return noise.mul_(sd).clamp_(-limit, limit)


def apply_noise(image: Tensor, noise: Tensor) -> Tensor:
    """A new tensor: image + noise."""
    return image + noise


def draw_log_gamma(image: Tensor, limit: float, generator: torch.Generator) -> Tensor:
    """One log exponent a sample, uniform in [-limit, limit]: (B,)."""
    uniform = torch.rand(image.shape[0], generator=generator, device=image.device, dtype=image.dtype)
    return (2.0 * uniform - 1.0) * limit


def apply_gamma(image: Tensor, log_gamma: Tensor) -> Tensor:
    """A new tensor: sign(x) |x|^g with g = exp(log_gamma).

    Args:
        image: (B, channels, X, Y[, Z]), normalised around 0; keeps its sign, 0 stays 0.
        log_gamma: (B,).
    """
    gamma = log_gamma.exp().view(-1, *[1] * (image.ndim - 1))
    return image.sign() * image.abs().pow(gamma)
