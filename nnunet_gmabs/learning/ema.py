"""The teacher: an exponential moving average of the student (Tarvainen & Valpola, NeurIPS 2017)."""

import torch
from torch import Tensor, nn


def teacher_decay(step: int, max_decay: float = 0.99) -> float:
    """Share of the old teacher kept at one update.

    min(1 - 1 / (step + 1), max_decay)

    Args:
        step: optimiser steps done before this one, from 0. At 0 the teacher becomes the student.
        max_decay: in [0, 1]. Paper (GM-ABS): 0.99.
    """
    return min(1.0 - 1.0 / (step + 1), max_decay)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Move the teacher towards the student, in place: teacher = decay teacher + (1 - decay) student.

    Parameters and floating-point buffers are averaged, in float32 where they are half precision;
    integer buffers (counters) are copied.

    Args:
        teacher: module that is changed, not wrapped (no DDP, no torch.compile).
        student: module of the same structure, not wrapped either.
        decay: in [0, 1].

    Raises:
        ValueError: the two have not the same parameters and buffers.
    """
    old, new = _tensors(teacher), _tensors(student)
    differing = {(n, t.shape) for n, t in old.items()} ^ {(n, t.shape) for n, t in new.items()}
    if differing:
        raise ValueError(f"teacher and student differ in {min(differing)[0]!r}; unwrap both first")
    full = [name for name in old if old[name].dtype in (torch.float32, torch.float64)]
    if full:
        torch._foreach_lerp_([old[n] for n in full], [new[n].to(old[n]) for n in full], 1.0 - decay)
    for name in old.keys() - set(full):
        if old[name].is_floating_point():
            old[name].copy_(torch.lerp(old[name].float(), new[name].float(), 1.0 - decay))
        else:
            old[name].copy_(new[name])


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once: state_dict() lists those of nnU-Net's encoder four times."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
