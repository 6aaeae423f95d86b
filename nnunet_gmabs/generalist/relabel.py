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
from nnunet_gmabs.generalist.figures import ScanFigures, mean_dice, one_hot, overlap_counts, summary
from nnunet_gmabs.generalist.images import ScanImages
from nnunet_gmabs.generalist.models import Generalist
from nnunet_gmabs.generalist.prototypes import PrototypeSums
from nnunet_gmabs.generalist.specialist import add_to_sums, specialist_of
from nnunet_gmabs.generalist.views import view_axes
from nnunet_gmabs.generalist.votes import Encode, Example, view_votes
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
    """

    labelled: list[str]
    unlabelled: list[str]
    image: Callable[[str], np.ndarray]
    expert_file: Callable[[str], Path]
    spacing_mm: Sequence[float]
    patch_size: Sequence[int]
    ignore_label: int
    device: torch.device

    def windows(self, network: nn.Module, identifier: str) -> SlidingWindows:
        """The network's windows over one scan."""
        image = torch.from_numpy(np.ascontiguousarray(self.image(identifier), dtype=np.float32))
        return SlidingWindows(image, network, list(self.patch_size), self.device)

    def expert(self, identifier: str) -> np.ndarray:
        """(X, Y, Z) labels as drawn, the ignore label elsewhere."""
        return decode(read_expert(self.expert_file(identifier))[0][0])


@dataclass(frozen=True)
class Relabeller:
    """All that stays the same from round to round.

    Attributes:
        generalist: None: the specialist's own prototype labels become pseudo labels.
        settings: see RelabelConfig.
        scans: all training scans.
        folder: gets round_NNN/<case>.b2nd.
        seed: of the prompts; with round, scan and axis it decides them, so that a round can be resumed anywhere.
        channel: of the image, that the generalist sees.
        window: of that channel, see ScanImages.
        embeddings: (identifier, images) -> embeddings from a cache; None: the generalist encodes each time.
    """

    generalist: Generalist | None
    settings: RelabelConfig
    scans: Scans
    folder: Path
    seed: int
    channel: int = 0
    window: tuple[float, float] | None = None
    embeddings: Callable[[str, ScanImages], Encode] | None = None

    def asking(
        self, generalist: Generalist, channel: int = 0, window: tuple[float, float] | None = None
    ) -> Relabeller:
        """The same with a generalist, and what it is shown."""
        return replace(self, generalist=generalist, channel=channel, window=window)

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
        network.eval()
        prototypes = self.labelled_prototypes(network) if self.settings.prototypes == "labelled" else None
        examples: list[Example] = []
        for identifier in progress(self.missing(number, part)):
            examples += self.scan(network, identifier, number, prototypes)
        figures = self.figures(number)
        if not self.missing(number):
            pseudo_labels.complete_round(self.folder, number)
        return summary(list(figures.values())), examples[:: max(1, len(examples) // MAX_EXAMPLES)][:MAX_EXAMPLES]

    def missing(self, number: int, part: slice = slice(None)) -> list[str]:
        """Scans without labels of a round; labelled ones first, because they tell which views are good."""
        done = set(pseudo_labels.finished(self.folder, number))
        return [i for i in [*self.scans.labelled, *self.scans.unlabelled][part] if i not in done]

    def figures(self, number: int) -> dict[str, ScanFigures]:
        """Of the scans that a round has labelled so far."""
        folder = pseudo_labels.round_folder(self.folder, number)
        names = pseudo_labels.finished(self.folder, number)
        return {name: ScanFigures(**pseudo_labels.read_figures(folder / f"{name}.b2nd")) for name in names}

    def labelled_prototypes(self, network: nn.Module) -> Tensor:
        """(C, F): prototypes of the voxels that the expert drew, over all labelled scans."""
        sums: PrototypeSums | None = None
        for identifier in self.scans.labelled:
            windows = self.scans.windows(network, identifier)
            probs = windows.probs(keep_features=True)
            sums = sums or PrototypeSums(len(probs))
            add_to_sums(sums, windows, torch.ones_like(probs), torch.from_numpy(self.scans.expert(identifier)))
        assert sums is not None
        return sums.prototypes()

    def scan(self, network: nn.Module, identifier: str, number: int, prototypes: Tensor | None = None) -> list[Example]:
        """Label one scan and write its file; a few slices to look at."""
        specialist = specialist_of(self.scans.windows(network, identifier), prototypes)
        expert = self.scans.expert(identifier)
        drawn, classes = expert != self.scans.ignore_label, len(specialist.probs) - 1
        slices, expert_views = 0, {}
        qualities: list[float] = []
        examples: list[Example] = []
        counts = np.zeros((classes, *expert.shape), np.uint8)
        axes = self.axes(identifier, number)
        if self.generalist is None or not axes:
            fused, agree = specialist.labels.astype(np.int16), float("nan")
        else:
            images = self.images(identifier)
            for axis in axes:
                votes = view_votes(
                    self.generalist,
                    images,
                    specialist,
                    axis,
                    self.rng(identifier, number, axis),
                    self.settings.box_outward,
                    self.settings.min_quality,
                    self.embeddings(identifier, images) if self.embeddings else None,
                    identifier,
                )
                slices, qualities = slices + votes.slices, qualities + votes.qualities
                examples += votes.examples
                counts += votes.masks
                if drawn.any():
                    expert_views[str(axis)] = overlap_counts(votes.masks, expert, drawn)
            fused = fusion.fuse_counts(counts, specialist.probs[1:], len(axes), self.settings.fusion)
            agree = _finite_mean(fusion.view_agreement(counts, len(axes)))
        teacher = specialist.probs.argmax(0)
        every = np.ones(expert.shape, bool)
        figures = ScanFigures(
            slices=slices,
            masks=len(qualities),
            quality=_finite_mean(np.array(qualities)),
            views_agree=agree,
            teacher_agrees=mean_dice([overlap_counts(one_hot(fused, classes), teacher, every)]),
            changed=float("nan"),
            expert_views=expert_views,
            expert_fused=overlap_counts(one_hot(fused, classes), expert, drawn) if drawn.any() else [],
        )
        if self.settings.trust == "agreement":
            fused = fusion.where_both_agree(fused, teacher, self.scans.ignore_label)
        labels = fusion.keep_expert_labels(fused, expert, self.scans.ignore_label)
        changed = self.changed(identifier, number, labels)
        pseudo_labels.write_pseudo_labels(
            self.folder, number, identifier, labels, asdict(figures) | {"changed": changed}
        )
        return examples

    def axes(self, identifier: str, number: int) -> list[int]:
        """Axes whose views vote; in unlabelled scans not those that disagree with the expert in the labelled ones."""
        axes = view_axes(self.scans.spacing_mm, self.settings.views)
        if identifier in self.scans.labelled or self.settings.min_expert_agreement == 0:
            return axes
        figures = [f for name, f in self.figures(number).items() if name in self.scans.labelled]
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


def _finite_mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
