#!/usr/bin/env python
"""Train the network of the `embedded` generalist, from a seed, on images drawn in code alone.

    OMP_NUM_THREADS=1 python scripts/train_embedded_generalist.py --seed 0 --steps 12000 --out embedded.safetensors

The learning rate falls along a half cosine over --steps; with --minutes it falls by the clock where
that is ahead, and the training ends in time (then the result depends on the machine). The state is
written beside --out every --save-every steps and taken up again when the same command is given.
Validated on scenes from another seed; the weights are the running average of all steps, never
chosen by a score.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nnunet_gmabs.files import replace_atomically, write_json
from nnunet_gmabs.generalist.embedded_network import EmbeddedNetwork, save_network
from nnunet_gmabs.generalist.training.samples import Batch, SamplePool, endless_samples

BATCH_SIZE = 32
CAPACITY = 4096
USES_A_SAMPLE = 3
WITHOUT_PRIOR = 0.15
PEAK_LR = 2e-3
WEIGHT_DECAY = 1e-3
AVERAGE_DECAY = 0.998
DICE_WEIGHT = 0.1  # more of it enlarges every mask that is uncertain: Dice forgives too much sooner than too little
QUALITY_WEIGHT = 0.2
VALIDATION_SEED = 10_000
PRIOR_BINS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.01)


def hard_overlap(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Dice and IoU of each mask with its truth, (B,) each; 1 where both are empty."""
    predicted, true = logits > 0, truth > 0.5
    both, total = (predicted & true).sum((1, 2)).float(), (predicted.sum((1, 2)) + true.sum((1, 2))).float()
    empty = total == 0
    return torch.where(empty, 1.0, 2 * both / total.clamp(min=1)), torch.where(
        empty, 1.0, both / (total - both).clamp(min=1)
    )


def loss_of(network: torch.nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy + soft Dice of each crop, and the cross-entropy of the predicted quality with the true IoU."""
    with torch.autocast("cpu", torch.bfloat16):
        logits, quality = network(batch.x.contiguous())
    probs = torch.sigmoid(logits)
    dice = (2 * (probs * batch.truth).sum((1, 2)) + 8) / (probs.sum((1, 2)) + batch.truth.sum((1, 2)) + 8)
    mask_loss = functional.binary_cross_entropy_with_logits(logits, batch.truth) + DICE_WEIGHT * (1 - dice).mean()
    _, iou = hard_overlap(logits.detach(), batch.truth)
    return mask_loss + QUALITY_WEIGHT * functional.binary_cross_entropy_with_logits(quality, iou)


def fill(pool: SamplePool, samples, number: int, rng: np.random.Generator) -> None:
    """Add at least this many new samples."""
    while number > 0:
        new = next(samples)
        pool.add(new, rng)
        number -= len(new)


def validation_pool(number: int, seed: int) -> SamplePool:
    """Samples that training never sees."""
    rng = np.random.default_rng(seed + VALIDATION_SEED)
    pool = SamplePool(number)
    fill(pool, endless_samples(rng), number, rng)
    return pool


@torch.no_grad()
def validate(network: EmbeddedNetwork, pool: SamplePool) -> dict:
    """Mean Dice with and without prior, by the prior's own Dice, and the error of the predicted quality."""
    network.eval()
    rows, errors, without, told = [], [], [], []
    for chosen in np.array_split(np.arange(pool.filled), max(1, pool.filled // 64)):
        ones = np.ones(len(chosen))
        for flag in (0 * ones, ones, ones + pool.prior_dice[chosen]):
            batch = pool.batch(chosen, flag)
            logits, quality = network(batch.x)
            dice, iou = hard_overlap(logits, batch.truth)
            if flag[0] == 0:
                without += dice.tolist()
            elif flag[0] == 1:
                prior_dice, _ = hard_overlap(batch.prior - 0.5, batch.truth)
                rows += zip(prior_dice.tolist(), dice.tolist(), strict=True)
                errors += (torch.sigmoid(quality) - iou).abs().tolist()
            else:
                told += dice.tolist()
    table = np.column_stack([np.array(rows), told])
    bins = {}
    for low, high in zip(PRIOR_BINS[:-1], PRIOR_BINS[1:], strict=True):
        part = table[(table[:, 0] >= low) & (table[:, 0] < high)]
        if len(part):
            bins[f"{low:.1f}-{min(high, 1):.1f}"] = [len(part), *part.mean(0).round(4).tolist()]
    network.train()
    return {
        "prior": round(float(table[:, 0].mean()), 4),
        "with_prior": round(float(table[:, 1].mean()), 4),
        "with_prior_of_known_dice": round(float(np.mean(told)), 4),
        "without_prior": round(float(np.mean(without)), 4),
        "worse_than_prior_by_2_points": round(float((table[:, 1] < table[:, 0] - 0.02).mean()), 4),
        "quality_error": round(float(np.mean(errors)), 4),
        "number, prior, with_prior, with_prior_of_known_dice; by prior": bins,
    }


def learning_rate(progress: float, step: int) -> float:
    """Half a cosine after 200 steps of warm-up."""
    return PEAK_LR * min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * min(1, progress)))


@torch.no_grad()
def follow(average: EmbeddedNetwork, network: EmbeddedNetwork, step: int) -> None:
    """Move the average towards the network, faster in the beginning."""
    decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


def main() -> None:
    """Train, validate, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="wall-clock limit")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file; a report is written beside it")
    parser.add_argument("--save-every", type=int, default=1000)
    parser.add_argument("--validation-samples", type=int, default=2048)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    network = EmbeddedNetwork()
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_LR, weight_decay=WEIGHT_DECAY)
    state_file = args.out.with_suffix(".state.pt")
    step, spent = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["seconds"]
    rng = np.random.default_rng([args.seed, step])  # a resumed training sees new scenes
    samples, pool = endless_samples(rng), SamplePool(CAPACITY)
    held_out = validation_pool(args.validation_samples, args.seed)
    start = time.monotonic() - spent
    fill(pool, samples, CAPACITY // 2, rng)
    owed, losses = 0.0, []
    while True:
        seconds = time.monotonic() - start
        progress = max(step / args.steps, seconds / 60 / args.minutes)
        if step % args.save_every == 0 or progress >= 1:
            report = {"seed": args.seed, "step": step, "seconds": round(seconds), "progress": round(progress, 4)}
            report["training_loss"] = round(float(np.mean(losses)), 4) if losses else None
            report |= validate(average, held_out)
            print(report, flush=True)
            losses = []
            save_network(average, args.out)
            write_json(args.out.with_suffix(".json"), report)
            state = {"network": network.state_dict(), "average": average.state_dict()}
            state |= {"optimizer": optimizer.state_dict(), "step": step, "seconds": time.monotonic() - start}
            replace_atomically(state_file, lambda path, state=state: torch.save(state, path))
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress, step)
        loss = loss_of(network, pool.random_batch(BATCH_SIZE, WITHOUT_PRIOR, rng))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
        step += 1
        follow(average, network, step)
        owed += BATCH_SIZE / USES_A_SAMPLE
        if owed >= BATCH_SIZE:
            fill(pool, samples, int(owed), rng)
            owed = 0.0


if __name__ == "__main__":
    main()
