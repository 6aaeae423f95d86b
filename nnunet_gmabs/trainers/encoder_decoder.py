"""Encoder and decoder of nnU-Net's networks, run apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import Tensor, nn

SUPPORTED = (PlainConvUNet, ResidualEncoderUNet)  # what nnU-Net plans; both are decoder(encoder(x))


class EncoderDecoder:
    """One network in two halves, with the network's own weights.

    Args:
        network: not wrapped by torch.compile.
        compiled: compile both halves.

    Raises:
        NotImplementedError: an architecture of which this is not known.
    """

    def __init__(self, network: nn.Module, compiled: bool) -> None:
        if type(network) not in SUPPORTED:  # a subclass may do anything in its forward
            raise NotImplementedError(
                f"{type(network).__name__}: perturbed features are known for "
                f"{' and '.join(c.__name__ for c in SUPPORTED)} only; use nnUNetTrainerCMEMSNoFeature"
            )
        halves: tuple[Any, Any] = (network.encoder, network.decoder)
        self._encoder: Any
        self._decoder: Any
        self._encoder, self._decoder = (torch.compile(half) if compiled else half for half in halves)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Features (B, F, X, Y[, Z]) of every resolution, the finest first."""
        return list(self._encoder(image))

    def decode(self, features: Sequence[Tensor]) -> list[Tensor] | Tensor:
        """What the network gives for these features: a list with deep supervision, or one tensor."""
        return self._decoder(list(features))
