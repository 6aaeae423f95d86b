"""What nnU-Net's augmentation must do differently for sparse labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, SegOnlyTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from torch import Tensor
from torch.nn import functional as F

PADDING = -1  # nnU-Net's loader and spatial transform write this where there is no image


def decode_labels(encoded: Tensor, padding: int) -> Tensor:
    """Labels from values as an expert file stores them and the loader pads them.

    Three facts share one number: a label v >= 0 inside nnU-Net's nonzero mask, -2 - v outside of it (every
    negative value is outside, as nnU-Net's MaskImageTransform expects), and -1 where there is no image.

    Args:
        encoded: int tensor.
        padding: label for it: background, or the ignore label.
    """
    labels = torch.where(encoded < PADDING, -2 - encoded, encoded)
    return torch.where(encoded == PADDING, padding, labels).to(encoded.dtype)


def downsample_labels(labels: Tensor, scales: Sequence[Sequence[float]], ignore_label: int | None) -> list[Tensor]:
    """Label maps for deep supervision in which no drawn plane is lost at any scale.

    Each coarse voxel takes the most frequent drawn label of its block, the smaller one on a tie; it is
    unknown only where nothing in the block is drawn. (nnU-Net keeps one voxel of each block, so a
    plane survives scale 1/2^n with probability 1/2^n.)

    Args:
        labels: (1, X, Y[, Z]) int.
        scales: for each output one factor an axis, 1 / a whole number that divides the axis.
        ignore_label: value of unknown voxels, or None when all are drawn.

    Returns:
        One (1, x, y[, z]) tensor a scale, of the dtype of labels.
    """
    blocks = [tuple(round(1 / s) for s in scale) for scale in scales]
    for block in blocks:
        if any(n % b for n, b in zip(labels.shape[1:], block, strict=True)):
            raise ValueError(
                f"patch {tuple(labels.shape[1:])} is not divisible into blocks of {block}; correct the plans"
            )
    unknown = -1 if ignore_label is None else ignore_label
    shapes = [[1, *(n // b for n, b in zip(labels.shape[1:], block, strict=True))] for block in blocks]
    best_share = [torch.zeros(shape) for shape in shapes]
    best_label = [torch.full(shape, unknown, dtype=labels.dtype) for shape in shapes]
    pool = F.avg_pool3d if labels.ndim == 4 else F.avg_pool2d
    for label in torch.unique(labels).tolist():  # ascending: a strict comparison leaves ties to the smaller label
        if label == ignore_label:
            continue
        present = (labels == label).float()
        for i, block in enumerate(blocks):
            share = present if max(block) == 1 else pool(present, block)
            more = share > best_share[i]
            best_share[i] = torch.where(more, share, best_share[i])
            best_label[i] = torch.where(more, label, best_label[i]).to(labels.dtype)
    return best_label


class SparseTargetTransform(SegOnlyTransform):
    """Last step of the pipeline: labels as the loader cropped them -> targets of the loss.

    The first channel are expert labels. A second one, pseudo labels, follows them unchanged in the first target.

    Args:
        ignore_label: of the data set; None when it has none (then padding is background).
        scales: deep supervision, or None for a single target.
        regions: for region-based data sets; the targets are then bool (regions, and unknown last).
        padding: "background", as in nnU-Net: a network that learns it finds less false foreground (docs/study.md); or
            "unknown". At coarse scales what an expert drew comes first. Pseudo labels say nothing of padding.
        padding_step: along each axis, at every scale, one voxel of padding in so many is background, the rest unknown.
    """

    def __init__(
        self,
        ignore_label: int | None,
        scales: Sequence | None,
        regions: Sequence | None,
        padding: str = "background",
        padding_step: int = 1,
    ) -> None:
        super().__init__()
        if padding not in ("background", "unknown"):
            raise ValueError(f"padding is {padding!r}; valid are 'background' and 'unknown'")
        self.unknown = 0 if ignore_label is None else ignore_label
        self.padding = 0 if padding == "background" else self.unknown
        self.padding_step = padding_step
        self.ignore_label = ignore_label
        self.scales = scales
        extra = [] if ignore_label is None else [ignore_label]
        self.to_regions = None if regions is None else ConvertSegmentationToRegionsTransform([*regions, *extra])

    def _apply_to_segmentation(self, segmentation: Tensor, **params) -> Tensor | list[Tensor]:
        expert, pseudo = segmentation[:1], segmentation[1:]  # the second without channel where a trainer has none
        scaled = self._at_scales(decode_labels(expert, self.unknown))
        if self.padding != self.unknown and (expert == PADDING).any():
            padded = self._at_scales(decode_labels(expert, self.padding))
            for labels, known in zip(scaled, padded, strict=True):
                some = (slice(None), *[slice(None, None, self.padding_step)] * (labels.ndim - 1))
                labels[some] = torch.where(labels[some] == self.unknown, known[some], labels[some])
        targets = [self._as_target(labels) for labels in scaled]
        if len(pseudo):
            targets[0] = torch.cat([targets[0], decode_labels(pseudo, self.unknown)])
        return targets[0] if self.scales is None else targets

    def _at_scales(self, labels: Tensor) -> list[Tensor]:
        return [labels] if self.scales is None else downsample_labels(labels, self.scales, self.ignore_label)

    def _as_target(self, labels: Tensor) -> Tensor:
        return labels if self.to_regions is None else self.to_regions(segmentation=labels)["segmentation"]


def for_sparse_labels(
    pipeline: BasicTransform,
    ignore_label: int | None,
    scales: Sequence | None,
    regions: Sequence | None,
    padding: str = "background",
    padding_step: int = 1,
) -> ComposeTransforms:
    """nnU-Net's pipeline, made without deep supervision and regions, with sparse labels treated rightly.

    - Labels are moved by the nearest neighbour: interpolation lets unknown neighbours win at the borders
      of classes inside a rotated plane, which would thin out exactly the voxels that matter.
    - What an expert drew is known at every scale of deep supervision.
    - Blurring does not choose its algorithm by wall time, so that a seed means something.

    Raises:
        ValueError: nnU-Net's pipeline has no step that this replaces (another version?).
    """
    steps = []
    for step in pipeline.transforms:
        if isinstance(step, RemoveLabelTansform):
            steps.append(SparseTargetTransform(ignore_label, scales, regions, padding, padding_step))
            continue
        if isinstance(step, SpatialTransform):
            step.mode_seg = "nearest"
        inner = step.transform if isinstance(step, RandomTransform) else step
        if isinstance(inner, GaussianBlurTransform):
            inner.benchmark = False
        steps.append(step)
    if not isinstance(steps[-1], SparseTargetTransform):
        raise ValueError("nnU-Net's pipeline does not end with RemoveLabelTansform; is this nnunetv2 >= 2.8.1?")
    return ComposeTransforms(steps)
