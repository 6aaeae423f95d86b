"""Settings of the trainers, each in terms of the one it builds on."""

from dataclasses import replace
from typing import Any

from nnunet_gmabs.config import (
    ActiveConfig,
    ConsistencyConfig,
    GeneralistConfig,
    GMABSConfig,
    MutualConfig,
    NoiseTolerantConfig,
    RelabelConfig,
    StreamsConfig,
    SupervisionConfig,
    SyntheticConfig,
)

SPARSE = GMABSConfig(
    inference_network="student", streams=StreamsConfig(labelled_share=1.0), teacher=None, consistency=None
)
"""Labelled scans only, one network."""

SPARSE_SYNTHETIC = replace(SPARSE, synthetic=SyntheticConfig(exemplars="all"))
"""Labelled scans, and every second sample with their objects pasted into an unlabelled scan."""

MEAN_TEACHER = GMABSConfig(streams=StreamsConfig(batch_share=1.25, labelled_share=0.8))
"""All labelled samples that nnU-Net would see, and a quarter as many unlabelled ones. In place of labelled ones, as in
the paper, unlabelled samples cost more than they gave (docs/older.md)."""

MEAN_TEACHER_PAPER = GMABSConfig(
    streams=StreamsConfig(labelled_share=0.5),
    # padding: as background it would count like planes in the mean over a sample's voxels
    supervision=SupervisionConfig(
        dice_weight=0.0, cross_entropy_average="samples", class_balance=0.0, padding="unknown"
    ),
    consistency=ConsistencyConfig(form="mse", weight=0.1, ramp_start=0.0),
)
"""The preset `paper`: GM-ABS's batches, supervision and consistency as its released program intends them."""

CMEMS = GMABSConfig(
    inference_network="better", teacher=None, consistency=None, mutual=MutualConfig(), synthetic=SyntheticConfig()
)
"""Two networks, exemplar and synthetic samples, and as many unlabelled ones."""

GM_ABS = replace(
    MEAN_TEACHER, generalist=GeneralistConfig(), relabel=RelabelConfig(), noise_tolerant=NoiseTolerantConfig()
)
"""The mean teacher, and what a generalist says when the teacher prompts it."""

GM_ABS_PAPER = replace(
    MEAN_TEACHER_PAPER,
    generalist=GeneralistConfig(),
    relabel=RelabelConfig(regions="prototypes", min_part=0.0, first_iterations=0),
    # logits of norm 1 for two classes: 1 / (1 + exp(-sqrt(2)))
    noise_tolerant=NoiseTolerantConfig(dice_weight=0.0, reachable_prob=0.80443),
)
"""The preset `paper`, with its prompts and weights."""

MEAN_TEACHER_SYNTHETIC = replace(MEAN_TEACHER, synthetic=SPARSE_SYNTHETIC.synthetic)
"""The same beside the mean teacher."""

GM_ABS_SYNTHETIC = replace(GM_ABS, synthetic=SPARSE_SYNTHETIC.synthetic)
"""The same beside GM-ABS."""

GM_ABS_ACTIVE = replace(GM_ABS, active=ActiveConfig())
"""GM-ABS whole: with active cross-labelling."""

GM_ABS_ACTIVE_PAPER = replace(GM_ABS_PAPER, active=ActiveConfig(strategy="uncertainty-diverse"))
"""The preset `paper`, whole."""

GM_ABS_MUTUAL = replace(GM_ABS, mutual=MutualConfig())
"""GM-ABS whose student has a peer; each also learns from the other's confident labels (two networks' work)."""


def with_changed(config: GMABSConfig, group: str, **values: Any) -> GMABSConfig:
    """A trainer's settings with some values of one group replaced; the rest stays what the trainer has."""
    return replace(config, **{group: replace(getattr(config, group), **values)})
