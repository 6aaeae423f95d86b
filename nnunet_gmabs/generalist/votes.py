"""The generalist's masks for one scan: the specialist prompts it, slice by slice, along each view."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from nnunet_gmabs.generalist import views
from nnunet_gmabs.generalist.figures import Counts
from nnunet_gmabs.generalist.images import ScanImages
from nnunet_gmabs.generalist.models import Generalist
from nnunet_gmabs.generalist.prompts import Prompt, prompt_from_region
from nnunet_gmabs.generalist.specialist import Specialist

Encode = Callable[[int, list[int]], tuple[list[np.ndarray], int]]
"""From (axis, indices) the embeddings of a scan's slices, and how many of them had to be computed."""
SLICES_AT_ONCE = 32
EXAMPLES = 2  # of each view


@dataclass(frozen=True)
class Example:
    """One slice as the generalist saw it, with one question and its answer.

    Attributes:
        title: scan, view, slice, class, quality.
        slice_2d: (H, W, 3) uint8.
        prompt: in pixels of the slice.
        mask: (H, W) bool.
    """

    title: str
    slice_2d: np.ndarray
    prompt: Prompt
    mask: np.ndarray


@dataclass
class ViewVotes:
    """What the generalist made of one view of a scan.

    Attributes:
        masks: (K, X, Y, Z) bool, one for each foreground class.
        qualities: predicted quality of each mask that it gave.
        slices: how many slices had a prompt.
        encoded: how many of them the generalist's encoder has seen; 0 where it has none.
        examples: a few of them, to be looked at.
    """

    masks: np.ndarray
    qualities: list[float] = field(default_factory=list)
    slices: int = 0
    encoded: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass
class ScanVotes:
    """All views of a scan added up.

    Attributes:
        counts: (K, X, Y, Z) uint8, how many views gave the voxel to each foreground class.
        axes: whose views have voted.
        expert_counts: axis -> counts of that view's masks against the voxels that the expert drew (figures.py).
        slices, encoded, qualities, examples: as of ViewVotes.
    """

    counts: np.ndarray
    axes: list[int] = field(default_factory=list)
    expert_counts: dict[str, Counts] = field(default_factory=dict)
    slices: int = 0
    encoded: int = 0
    qualities: list[float] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)

    def add(self, axis: int, view: ViewVotes, expert_counts: Counts | None) -> None:
        """Take in one view; expert_counts is None in a scan without expert voxels."""
        self.counts += view.masks
        self.axes.append(axis)
        self.slices, self.encoded = self.slices + view.slices, self.encoded + view.encoded
        self.qualities, self.examples = self.qualities + view.qualities, self.examples + view.examples
        if expert_counts is not None:
            self.expert_counts[str(axis)] = expert_counts


@dataclass(frozen=True)
class Question:
    """One class on one slice; the prompt is in pixels of the scan's own slice."""

    index: int
    label: int
    prompt: Prompt


def questions(specialist: Specialist, axis: int, rng: np.random.Generator, max_outward: float) -> Iterator[Question]:
    """A prompt for each slice and foreground class that the specialist sees there, slices in order."""
    for index in views.slices_with(specialist.labels > 0, axis):
        labels, probs = (views.take_slice(array, axis, index) for array in (specialist.labels, specialist.probs))
        margin = specialist.margin(axis, int(index))
        for label in range(1, len(probs)):
            prompt = prompt_from_region(labels == label, margin[label], rng, max_outward, prior=probs[label])
            if prompt is not None:
                yield Question(int(index), label, prompt)


def view_votes(
    generalist: Generalist,
    images: ScanImages,
    specialist: Specialist,
    axis: int,
    rng: np.random.Generator,
    encode: Encode,
    max_outward: float = 0.1,
    min_quality: float = 0.0,
    name: str = "",
) -> ViewVotes:
    """Masks along one axis: no prompt, no mask; masks below min_quality do not vote.

    Args:
        generalist: answers; frozen.
        images: the scan as it sees it.
        specialist: asks.
        axis: of the slices.
        rng: draws the boxes; its state after the call depends on the specialist alone.
        encode: embeddings of slices, some at a time, and only of those with a prompt.
        max_outward: see prompt_from_region.
        min_quality: in [0, 1].
        name: of the scan, for the examples.
    """
    votes = ViewVotes(np.zeros((len(specialist.probs) - 1, *specialist.labels.shape), bool))
    asked: dict[int, list[Question]] = {}
    for question in questions(specialist, axis, rng, max_outward):
        asked.setdefault(question.index, []).append(question)
    votes.slices = len(asked)
    shown = set(list(asked)[len(asked) // 3 :: max(len(asked) // EXAMPLES, 1)][:EXAMPLES])
    slices = list(asked.items())
    for start in range(0, len(slices), SLICES_AT_ONCE):
        part = slices[start : start + SLICES_AT_ONCE]
        prompts = [[images.to_square(axis, q.prompt) for q in qs] for _, qs in part]
        embeddings, encoded = encode(axis, [index for index, _ in part])
        votes.encoded += encoded
        answers = generalist.segment_many(list(zip(embeddings, prompts, strict=True)))
        for (index, qs), own, (masks, qualities) in zip(part, prompts, answers, strict=True):
            for question, mask, quality in zip(qs, images.from_square(axis, masks), qualities, strict=True):
                votes.qualities.append(float(quality))
                if quality >= min_quality:
                    views.take_slice(votes.masks[question.label - 1], axis, index)[...] |= mask
            if index in shown:
                title = f"{name}, axis {axis}, slice {index}, class {qs[0].label}, quality {float(qualities[0]):.2f}"
                votes.examples.append(Example(title.lstrip(", "), images.slice(axis, index), own[0], masks[0]))
    return votes
