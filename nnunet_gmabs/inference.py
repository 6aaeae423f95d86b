"""A network over a whole scan, window by window: probabilities, and what its features say about each class.

Memory grows with classes x voxels, never with features x voxels: features live as long as their window, unless the
whole scan's fit into a stated size (then each window passes the network once instead of three times).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from torch import Tensor, nn

Window = tuple[slice | int, ...]


def mixed_precision(device: torch.device, cpu_bfloat16: bool = False) -> torch.autocast:
    """Float16 on CUDA, as nnU-Net; on a CPU bfloat16 if that is wanted; else single precision."""
    if device.type == "cpu":
        return torch.autocast("cpu", torch.bfloat16, enabled=cpu_bfloat16)
    return torch.autocast(device.type, enabled=device.type == "cuda")


@contextmanager
def features_of_last_layer(network: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, each pass of the network leaves the input of its last segmentation layer in the list: [(B, F, ...)].

    Raises:
        NotImplementedError: the network has no decoder.seg_layers, as all networks that nnU-Net plans have.
    """
    layers = getattr(getattr(network, "decoder", None), "seg_layers", None)
    if not layers:
        raise NotImplementedError(
            f"{type(network).__name__} has no decoder.seg_layers; class prototypes need a network that nnU-Net plans"
        )
    seen: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[:] = [inputs[0]]

    handle = layers[-1].register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


class SlidingWindows:
    """One scan cut into nnU-Net's overlapping windows with nnU-Net's Gaussian weights.

    Args:
        image: (channels, X, Y, Z) float, preprocessed; on any device.
        network: not compiled, in eval mode, weights on `device`.
        patch_size: of the plan; two numbers for a 2d network, which then sees every slice of axis 0.
        device: where windows and what is made of their features are computed; results are kept on the CPU.
        step: distance of windows as a share of the patch, in (0, 1]. nnU-Net's own: 0.5.
        batch_size: windows in one pass.
        features_bytes: keep all features when they need no more than this.
        cpu_bfloat16: see mixed_precision.
    """

    def __init__(
        self,
        image: Tensor,
        network: nn.Module,
        patch_size: tuple[int, ...] | list[int],
        device: torch.device,
        step: float = 0.5,
        batch_size: int = 4,
        features_bytes: int = 1 << 29,
        cpu_bfloat16: bool = False,
    ) -> None:
        self.image, self.crop = pad_nd_image(image, tuple(patch_size), "constant", {"value": 0}, True, None)
        self.network, self.device, self.cpu_bfloat16 = network, device, cpu_bfloat16
        self.batch_size, self.features_bytes = batch_size, features_bytes
        shape = self.image.shape[1:]
        planes = [(z,) for z in range(shape[0])] if len(patch_size) < len(shape) else [()]
        starts = compute_steps_for_sliding_window(tuple(shape[-len(patch_size) :]), tuple(patch_size), step)
        grid = torch.cartesian_prod(*map(torch.tensor, starts)).reshape(-1, len(patch_size)).tolist()
        self.windows: list[Window] = [
            (*plane, *(slice(s, s + n) for s, n in zip(corner, patch_size, strict=True)))
            for plane in planes
            for corner in grid
        ]
        self.gaussian = compute_gaussian(tuple(patch_size), 1 / 8, 10, torch.float32, torch.device("cpu"))
        self.coverage = torch.zeros(tuple(shape))
        for window in self.windows:
            self.coverage[window] += self.gaussian
        self._kept: list[tuple[Window, Tensor]] | None = None

    def weight(self, window: Window) -> Tensor:
        """The window's share in each of its voxels; over all windows these sum to 1 everywhere."""
        return self.gaussian / self.coverage[window]

    @torch.inference_mode()
    def probs(self, keep_features: bool = False) -> Tensor:
        """(C, X, Y, Z) float32 on the CPU: softmax of the logits averaged over windows."""
        logits: Tensor | None = None
        self._kept = [] if keep_features else None
        used = 0
        for window, output, features in self._passes(keep_features):
            if logits is None:
                logits = torch.zeros(output.shape[0], *self.image.shape[1:])
            logits[(slice(None), *window)] += output * self.weight(window)
            if self._kept is not None and features is not None:
                used += features.numel() * features.element_size()
                if used > self.features_bytes:
                    self._kept = None
                else:
                    self._kept.append((window, features))
        assert logits is not None
        for plane in logits.unbind(1):  # in place: a second array of classes x voxels would double the memory
            plane[:] = torch.softmax(plane, 0)
        return logits[self._cropped()]

    @torch.inference_mode()
    def each_features(self) -> Iterator[tuple[Window, Tensor, Tensor]]:
        """For each window: its place on the padded grid, its weight there, its features (F, x, y[, z]) float32.

        Weights are on the CPU, features on the device.
        """
        if self._kept is not None:
            for window, features in self._kept:
                yield window, self.weight(window), features
            return
        for window, _, kept in self._passes(features=True):
            assert kept is not None
            yield window, self.weight(window), kept

    @torch.inference_mode()
    def averaged(self, classes: int, compare: Callable[[Tensor], Tensor]) -> Tensor:
        """(classes, X, Y, Z) float32: compare(features of a window) -> (classes, x, y[, z]), averaged over windows."""
        total = torch.zeros(classes, *self.image.shape[1:])
        for window, weight, features in self.each_features():
            total[(slice(None), *window)] += compare(features).cpu() * weight
        return total[self._cropped()]

    def inside(self, window: Window) -> tuple[Window, Window]:
        """The part of a window that is no padding: its place in the window, and its place in the scan."""
        within, place = [], []
        for part, crop in zip(window, self.crop[1:], strict=True):
            if isinstance(part, int):
                place.append(part - crop.start)
                continue
            first, end = max(part.start, crop.start), min(part.stop, crop.stop)
            within.append(slice(first - part.start, end - part.start))
            place.append(slice(first - crop.start, end - crop.start))
        return tuple(within), tuple(place)

    def _cropped(self) -> tuple[slice, ...]:
        return (slice(None), *self.crop[1:])

    def _passes(self, features: bool) -> Iterator[tuple[Window, Tensor, Tensor | None]]:
        """Window, logits (C, ...) on the CPU and, if wanted, features (F, ...) on the device, float32."""
        with features_of_last_layer(self.network) if features else nullcontext() as seen:
            for first in range(0, len(self.windows), self.batch_size):
                batch = self.windows[first : first + self.batch_size]
                data = torch.stack([self.image[(slice(None), *w)] for w in batch]).float()
                with mixed_precision(self.device, self.cpu_bfloat16):  # inference_mode would end it at a yield
                    output = self.network(data.to(self.device))
                full = output[0] if isinstance(output, (list, tuple)) else output
                kept = [None] * len(batch) if seen is None else seen[0].float()
                yield from zip(batch, full.float().cpu(), kept, strict=True)
