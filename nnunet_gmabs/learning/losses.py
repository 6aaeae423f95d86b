"""Losses that look only at voxels somebody vouches for.

Each is a function of sums over a batch. Where several processes hold a part of the batch each, `total` turns a
process's sums into those of all (trainers/ranks.py), so that every process has the loss of the whole batch; their
gradients, added up, are its gradient. A process that holds no sample, or no labelled voxel, calls the same functions.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

SMOOTH = 1e-5  # nnU-Net's own smoothing of Dice
Total = Callable[[Tensor], Tensor]  # the sums of one process, any shape -> the sums over all processes, same shape


def alone(sums: Tensor) -> Tensor:
    """The sums of the only process there is."""
    return sums


def masked_cross_entropy(
    logits: Tensor,
    target: Tensor,
    mask: Tensor,
    average: str = "samples",
    total: Total = alone,
    class_balance: float = 0.0,
) -> Tensor:
    """Mean cross-entropy over the voxels an expert has labelled.

    l_bv = - m_bv w_k log softmax(z_bv)[k],  k = y_bv
    L_b = sum_v l_bv / sum_v m_bv,  L = mean of L_b over the samples b that have labelled voxels
                                                                                         (GM-ABS; average="samples")
    L = sum_bv l_bv / sum_bv m_bv                                                        (nnU-Net; average="voxels")

    Both have w = 1. Ours: w_k = n_k^-beta N / sum_j n_j^(1-beta), n_k of the N labelled voxels of the batch being of
    class k: their mean weight stays 1, and with beta = 1 all classes weigh alike.

    Args:
        logits: (B, C, X, Y[, Z]) float.
        target: (B, 1, X, Y[, Z]) int; read only where mask is True.
        mask: (B, 1, X, Y[, Z]) bool.
        average: "samples" or "voxels".
        total: see above.
        class_balance: beta in [0, 1].

    Returns:
        Scalar in the graph of logits; exactly 0 when mask is empty.

    Raises:
        ValueError: target or mask has another shape.
    """
    _require_one_channel(logits, target, mask)
    labels = torch.where(mask, target, 0)[:, 0].long()
    voxel_loss = F.cross_entropy(logits.float(), labels, reduction="none") * mask[:, 0]
    if class_balance:
        counts = torch.zeros(logits.shape[1], dtype=torch.long, device=logits.device)  # floats stop counting at 2^24
        counts.scatter_add_(0, labels.flatten(), mask.flatten().long())
        voxel_loss = voxel_loss * _class_weights(total(counts.float()), class_balance)[labels]
    return _average(voxel_loss, mask[:, 0], average, total)


def _class_weights(counts: Tensor, class_balance: float) -> Tensor:
    """n_k -> w_k of masked_cross_entropy, over the last axis; (..., C) twice."""
    weights = counts.clamp(min=1) ** -class_balance
    return weights * counts.sum(-1, keepdim=True) / (counts * weights).sum(-1, keepdim=True).clamp(min=1)


def masked_binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    mask: Tensor,
    average: str = "samples",
    total: Total = alone,
    class_balance: float = 0.0,
) -> Tensor:
    """masked_cross_entropy for overlapping regions: mean over labelled voxels and regions.

    With class_balance the two classes of a region are what lies in it and what does not.

    Args:
        logits: (B, R, X, Y[, Z]) float, one sigmoid a region.
        target: (B, R, X, Y[, Z]) bool or float in [0, 1].
        mask: (B, 1, X, Y[, Z]) bool.
        average: "samples" or "voxels".
        total: see above.
        class_balance: beta in [0, 1].

    nnU-Net itself takes the mean over regions without ignore label, and the sum with it.
    """
    _require_one_channel(logits, mask)
    voxel_loss = F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
    if class_balance:
        labelled = mask.float()
        inside = target.float() * labelled
        counts = torch.stack([inside, labelled - inside], -1).flatten(2, -2).sum((0, 2))  # (R, 2)
        inner, outer = _class_weights(total(counts), class_balance).unbind(-1)
        shape = (1, -1, *[1] * (logits.ndim - 2))
        voxel_loss = voxel_loss * torch.lerp(outer.view(shape), inner.view(shape), target.float())
    return _average(voxel_loss.mean(1) * mask[:, 0], mask[:, 0], average, total)


def _require_one_channel(like: Tensor, *tensors: Tensor) -> None:
    """Raise ValueError unless all are (B, 1, X, Y[, Z]) of `like`: broadcasting would mix up samples.

    (The released GM-ABS program has this fault: every sample learns from the planes of all others.)
    """
    expected = (like.shape[0], 1, *like.shape[2:])
    for tensor in tensors:
        if tensor.shape != expected:
            raise ValueError(f"shape is {tuple(tensor.shape)}; it must be {expected}")


def _average(voxel_loss: Tensor, mask: Tensor, average: str, total: Total) -> Tensor:
    """Mean of a loss that is 0 outside the mask: (B, X, Y[, Z]) twice -> scalar."""
    if average == "voxels":
        return _ratio(voxel_loss.sum(), mask.sum(), total)
    if average != "samples":
        raise ValueError(f"average is {average!r}; valid are 'samples' and 'voxels'")
    counts = mask.flatten(1).sum(1)
    per_sample = voxel_loss.flatten(1).sum(1) / counts.clamp(min=1)
    return _ratio(per_sample.sum(), (counts > 0).sum(), total)


def _ratio(summed: Tensor, count: Tensor, total: Total) -> Tensor:
    """Mean of what was summed up over all processes; 0 where nothing was."""
    summed, count = total(torch.stack([summed, count.to(summed)])).unbind()
    return summed / count.clamp(min=1)


def masked_dice_loss(
    probs: Tensor, target_one_hot: Tensor, mask: Tensor, batch_dice: bool = False, total: Total = alone
) -> Tensor:
    """1 - soft Dice over labelled voxels, a class counted only where it is drawn.

    D_bk = (2 sum_v m p_k t_k + s) / (sum_v m p_k + sum_v m t_k + s),  s = 1e-5 as in nnU-Net
    L = 1 - mean of D_bk over the pairs (b, k) with sum_v m_bv t_bkv > 0

    nnU-Net itself also averages classes that no labelled voxel of a sample shows. Their Dice is
    near 0 and carries no gradient, but it thins out the others', the more the fewer voxels are drawn.

    Args:
        probs: (B, K, X, Y[, Z]) in [0, 1], foreground classes or regions.
        target_one_hot: (B, K, X, Y[, Z]) bool or float; read only where mask is True.
        mask: (B, 1, X, Y[, Z]) bool.
        batch_dice: sums run over the whole batch, as if it were one sample.
        total: see above.

    Returns:
        Scalar in [0, 1] in the graph of probs; exactly 0 when no class is drawn.
    """
    _require_one_channel(probs, mask)
    axes = tuple(range(2, probs.ndim))
    probs, target = probs.float() * mask, target_one_hot.float() * mask
    overlap, size_probs, size_target = (probs * target).sum(axes), probs.sum(axes), target.sum(axes)
    if batch_dice:
        sums = [x.sum(0, keepdim=True) for x in (overlap, size_probs, size_target)]
        overlap, size_probs, size_target = total(torch.stack(sums)).unbind()
    drawn = size_target > 0
    dice = (2 * overlap + SMOOTH) / (size_probs + size_target + SMOOTH)
    return _ratio(((1 - dice) * drawn).sum(), drawn.sum(), alone if batch_dice else total)


def one_hot_foreground(labels: Tensor, num_classes: int) -> Tensor:
    """(B, 1, X, Y[, Z]) int -> (B, num_classes - 1, X, Y[, Z]) bool; labels outside 1..C-1 give no True."""
    classes = torch.arange(1, num_classes, device=labels.device).view(1, -1, *[1] * (labels.ndim - 2))
    return labels == classes


def mean_squared_difference(probs: Tensor, reference: Tensor, total: Total = alone) -> Tensor:
    """Mean of (probs - reference)^2 over all entries; 0, in the graph of probs, when there are none."""
    summed = (probs - reference).pow(2).sum()
    return _ratio(summed, summed.new_tensor(probs.numel()), total)


def clip_logits(logits: Tensor, max_norm: float = 1.0) -> Tensor:
    """Logits whose norm over the class axis 1 is at most max_norm (Wei et al., ICML 2023).

    z min(1, max_norm / |z|_2): directions stay, so the argmax stays.
    """
    # on the CPU torch's own vector_norm over classes takes several times as long
    norm = logits.square().sum(1, keepdim=True).clamp(min=torch.finfo(logits.dtype).tiny).sqrt()
    return logits * (max_norm / norm).clamp(max=1)


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """sum_i w_i L_i over the same names in both.

    Raises:
        ValueError: a term without weight, or a weight without term.
    """
    if terms.keys() != weights.keys():
        raise ValueError(f"terms {sorted(terms)} and weights {sorted(weights)} differ")
    return torch.stack([weights[name] * terms[name] for name in terms]).sum()
