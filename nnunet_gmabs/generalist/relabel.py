"""One round: for each training scan the generalist's masks, fused over the views, become its pseudo labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_gmabs.config import RelabelConfig
from nnunet_gmabs.data import pseudo_labels
from nnunet_gmabs.data.expert import decode, read_expert
from nnunet_gmabs.generalist import fusion
from nnunet_gmabs.generalist.embeddings import EmbeddingCache
from nnunet_gmabs.generalist.figures import ScanFigures, mean, mean_dice, one_hot, overlap_counts, summary
from nnunet_gmabs.generalist.images import ScanImages
from nnunet_gmabs.generalist.models import Generalist
from nnunet_gmabs.generalist.parts import smallest_parts
from nnunet_gmabs.generalist.prototypes import PrototypeSums
from nnunet_gmabs.generalist.specialist import Specialist, add_to_sums, specialist_of
from nnunet_gmabs.generalist.views import view_axes
from nnunet_gmabs.generalist.votes import Encode, Example, ScanVotes, view_votes
from nnunet_gmabs.inference import SlidingWindows

Progress = Callable[[Sequence[str]], Iterable[str]]
MAX_EXAMPLES = 6  # slices of a round that are kept to be looked at


@dataclass(frozen=True)
class Scans:
    """The training scans on the training grid.

    Attributes:
        labelled, unlabelled: identifiers.
        image: identifier -> (channels, X, Y, Z) float.
        expert_file: identifier -> its expert file (data/expert.py).
        spacing_mm: of the grid, three numbers; two for a 2d configuration.
        patch_size: of the plan.
        ignore_label: of the data set.
        device: of the network.
        cpu_bfloat16: see inference.mixed_precision.
    """

    labelled: list[str]
    unlabelled: list[str]
    image: Callable[[str], np.ndarray]
    expert_file: Callable[[str], Path]
    spacing_mm: Sequence[float]
    patch_size: Sequence[int]
    ignore_label: int
    device: torch.device
    cpu_bfloat16: bool = False

    def windows(self, network: nn.Module, identifier: str) -> SlidingWindows:
        """The network's windows over one scan."""
        image = torch.from_numpy(np.ascontiguousarray(self.image(identifier), dtype=np.float32))
        return SlidingWindows(image, network, list(self.patch_size), self.device, cpu_bfloat16=self.cpu_bfloat16)

    def expert(self, identifier: str) -> np.ndarray:
        """(X, Y, Z) labels as drawn, the ignore label elsewhere."""
        return decode(read_expert(self.expert_file(identifier))[0][0])


@dataclass(frozen=True)
class Relabeller:
    """All that stays the same from round to round.

    Attributes:
        generalist: None: the specialist's own regions become pseudo labels.
        settings: see RelabelConfig.
        scans: all training scans.
        folder: gets round_NNN/<case>.b2nd.
        seed: of the prompts; with round, scan and axis it decides them, so that a round can be resumed anywhere.
        channel: of the image, that the generalist sees.
        window: of that channel, see ScanImages.
        cache: keeps the embeddings of slices; None: the generalist encodes each time.
        truth: identifier -> (X, Y, Z) dense labels, for studies (settings.truth).
    """

    generalist: Generalist | None
    settings: RelabelConfig
    scans: Scans
    folder: Path
    seed: int
    channel: int = 0
    window: tuple[float, float] | None = None
    cache: EmbeddingCache | None = None
    truth: Callable[[str], np.ndarray] | None = None

    def asking(
        self,
        generalist: Generalist,
        channel: int = 0,
        window: tuple[float, float] | None = None,
        cache: EmbeddingCache | None = None,
    ) -> Relabeller:
        """The same with a generalist, what it is shown, and where its embeddings are kept."""
        return replace(self, generalist=generalist, channel=channel, window=window, cache=cache)

    def on(self, scans: Scans) -> Relabeller:
        """The same for other scans."""
        return replace(self, scans=scans)

    def run(
        self, network: nn.Module, number: int, progress: Progress = iter, part: slice = slice(None)
    ) -> tuple[dict[str, float], list[Example]]:
        """Label all scans that this round has not labelled yet; then the round is complete.

        Args:
            network: the specialist, not compiled; put into eval mode.
            number: of the round, from 1.
            progress: wraps the scans that are left, for a progress bar.
            part: of the scans, when several processes share a round; only a whole round becomes complete.

        Returns:
            Figures of the round so far (generalist/figures.py), and a few slices to look at.
        """
        examples = self.label(network, number, progress, part)
        return self.close(number), few(examples)

    def label(
        self, network: nn.Module, number: int, progress: Progress = iter, part: slice = slice(None)
    ) -> list[Example]:
        """What run does before it completes the round; slices of all scans labelled here."""
        network.eval()
        prototypes = self.labelled_prototypes(network) if self.settings.prototypes == "labelled" else None
        min_parts, examples = self.min_parts(), list[Example]()
        for identifier in progress(self.missing(number, part)):
            examples += self.scan(network, identifier, number, prototypes, min_parts)
        return examples

    def close(self, number: int) -> dict[str, float]:
        """Complete a round of which no scan is missing; its figures so far."""
        if not self.missing(number):
            pseudo_labels.complete_round(self.folder, number)
        return summary(list(self.figures(number).values()))

    def missing(self, number: int, part: slice = slice(None)) -> list[str]:
        """Scans without labels of a round; labelled ones first, because they tell which views are good."""
        done = set(pseudo_labels.finished(self.folder, number))
        return [i for i in [*self.scans.labelled, *self.scans.unlabelled][part] if i not in done]

    def figures(self, number: int, identifiers: Sequence[str] | None = None) -> dict[str, ScanFigures]:
        """Of the scans that a round has labelled so far, or of those of them that are named."""
        folder = pseudo_labels.round_folder(self.folder, number)
        if identifiers is None:
            identifiers = pseudo_labels.finished(self.folder, number)
        files = {name: folder / f"{name}.b2nd" for name in identifiers}
        return {n: ScanFigures(**pseudo_labels.read_figures(file)) for n, file in files.items() if file.is_file()}

    def min_parts(self) -> list[float]:
        """Of each class, which share of its largest part another part must have to be prompted."""
        if self.settings.min_part is not None:
            return [self.settings.min_part] * (self.scans.ignore_label - 1)
        return smallest_parts(map(self.scans.expert, self.scans.labelled), self.scans.ignore_label)

    def labelled_prototypes(self, network: nn.Module) -> Tensor:
        """(C, F): prototypes of the voxels that the expert drew, over all labelled scans."""
        sums: PrototypeSums | None = None
        for identifier in self.scans.labelled:
            windows = self.scans.windows(network, identifier)
            probs = windows.probs(keep_features=True)
            sums = sums or PrototypeSums(len(probs))
            add_to_sums(sums, windows, None, torch.from_numpy(self.scans.expert(identifier)))
        assert sums is not None
        return sums.prototypes()

    def scan(
        self,
        network: nn.Module,
        identifier: str,
        number: int,
        prototypes: Tensor | None = None,
        min_parts: Sequence[float] | None = None,
    ) -> list[Example]:
        """Label one scan and write its file; a few slices to look at."""
        specialist = specialist_of(
            self.scans.windows(network, identifier), prototypes, self.settings.regions, min_parts
        )
        teacher, expert = specialist.probs.argmax(0).astype(np.int16), self.scans.expert(identifier)
        votes = self.votes(specialist, expert, identifier, number)
        if votes.axes:
            fused = fusion.fuse_counts(votes.counts, specialist.probs[1:], len(votes.axes), self.settings.fusion)
        else:
            fused = specialist.labels
        labels = fusion.where_both_agree(fused, teacher, self.scans.ignore_label) if self.careful else fused
        labels = fusion.keep_expert_labels(labels, expert, self.scans.ignore_label)
        if self.truth is not None and self.settings.truth == "learned":
            labels = self.truth(identifier).astype(labels.dtype)
        figures = self.scan_figures(votes, fused, teacher, expert, self.changed(identifier, number, labels))
        if self.truth is not None:
            truth, classes = self.truth(identifier), len(votes.counts)
            figures = replace(
                figures,
                true_teacher=overlap_counts(one_hot(teacher, classes), truth),
                true_pseudo=overlap_counts(one_hot(labels, classes), truth),
            )
        pseudo_labels.write_pseudo_labels(self.folder, number, identifier, labels, asdict(figures))
        return votes.examples

    @property
    def careful(self) -> bool:
        """Whether only voxels on which generalist and specialist agree are learned from."""
        return self.settings.trust == "agreement"

    def votes(self, specialist: Specialist, expert: np.ndarray, identifier: str, number: int) -> ScanVotes:
        """What the generalist makes of one scan; without a generalist, or without a good view, no view votes."""
        votes = ScanVotes(np.zeros((len(specialist.probs) - 1, *expert.shape), np.uint8))
        axes = self.axes(identifier, number)
        if self.generalist is None or not axes:
            return votes
        images = self.images(identifier)
        drawn = expert != self.scans.ignore_label
        settings = self.settings
        for axis in axes:
            rng, encode = self.rng(identifier, number, axis), self.encode(images)
            options = settings.box_outward, settings.min_quality, identifier
            view = view_votes(self.generalist, images, specialist, axis, rng, encode, *options)
            votes.add(axis, view, overlap_counts(view.masks, expert, drawn) if drawn.any() else None)
        return votes

    def scan_figures(
        self, votes: ScanVotes, fused: np.ndarray, teacher: np.ndarray, expert: np.ndarray, changed: float
    ) -> ScanFigures:
        """The figures of one scan, from what the generalist, the teacher and the expert say."""
        drawn, masks = expert != self.scans.ignore_label, one_hot(fused, len(votes.counts))
        return ScanFigures(
            slices=votes.slices,
            encoded=votes.encoded,
            masks=len(votes.qualities),
            quality=mean(votes.qualities),
            views_agree=mean(fusion.view_agreement(votes.counts, len(votes.axes))),
            teacher_agrees=mean_dice([overlap_counts(masks, teacher)]),
            changed=changed,
            expert_views=votes.expert_counts,
            expert_fused=overlap_counts(masks, expert, drawn) if drawn.any() else [],
        )

    def axes(self, identifier: str, number: int) -> list[int]:
        """Axes whose views vote; in unlabelled scans not those that disagree with the expert in the labelled ones."""
        axes = view_axes(self.scans.spacing_mm, self.settings.views)
        if identifier in self.scans.labelled or self.settings.min_expert_agreement == 0:
            return axes
        figures = self.figures(number, self.scans.labelled).values()
        dice = {axis: mean_dice([f.expert_views[str(axis)] for f in figures if f.expert_views]) for axis in axes}
        return [axis for axis in axes if not dice[axis] < self.settings.min_expert_agreement]

    def images(self, identifier: str) -> ScanImages:
        """The scan as the generalist sees it."""
        assert self.generalist is not None
        return ScanImages(
            self.scans.image(identifier),
            self.scans.spacing_mm,
            self.channel,
            self.window,
            self.generalist.wants_neighbours,
            identifier,
        )

    def encode(self, images: ScanImages) -> Encode:
        """Embeddings of the slices of one scan, and how many of them were computed, not read."""
        generalist, cache = self.generalist, self.cache
        assert generalist is not None

        def encode(axis: int, indices: list[int]) -> tuple[list[np.ndarray], int]:
            slices = [images.slice(axis, index) for index in indices]
            if cache is None:
                return generalist.encode_many(slices), len(slices) * generalist.has_encoder
            before = cache.misses
            return cache.encode(generalist, slices), cache.misses - before

        return encode

    def rng(self, identifier: str, number: int, axis: int) -> np.random.Generator:
        """Of the prompts of one view in one round."""
        name = int.from_bytes(hashlib.sha256(identifier.encode()).digest()[:8], "little")
        return np.random.default_rng((self.seed, number, name, axis))

    def changed(self, identifier: str, number: int, labels: np.ndarray) -> float:
        """Share of voxels whose label differs from the round before; NaN where that is not there."""
        path = pseudo_labels.round_folder(self.folder, number - 1) / f"{identifier}.b2nd"
        if not path.is_file():
            return float("nan")
        return float(np.mean(pseudo_labels.read_pseudo_labels(path, labels.shape)[:] != labels))


def few(examples: Sequence[Example]) -> list[Example]:
    """Some slices out of those of a round."""
    return list(examples[:: max(1, len(examples) // MAX_EXAMPLES)][:MAX_EXAMPLES])
