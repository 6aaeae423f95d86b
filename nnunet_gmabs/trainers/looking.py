"""Looking at unlabelled scans before an expert is asked: what the networks say of them, and what they look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from nnunet_gmabs.active.scores import disagreement, uncertain_fraction
from nnunet_gmabs.active.select import STRATEGIES, Strategy
from nnunet_gmabs.config import ActiveConfig
from nnunet_gmabs.data import preprocessed
from nnunet_gmabs.data.grid import TrainingGrid, labels_to_original_grid
from nnunet_gmabs.inference import SlidingWindows
from nnunet_gmabs.learning.schedules import uncertainty_threshold
from nnunet_gmabs.trainers.distributed import unwrap
from nnunet_gmabs.trainers.mean_teacher import nnUNetTrainerMeanTeacher

T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """What a strategy chooses by: of one unlabelled scan, on the training grid."""

    score: float = 0.0
    features: np.ndarray | None = None


class LooksAtScans(nnUNetTrainerMeanTeacher):
    """Mixin: scores, features and labels of scans for the strategy that is set."""

    @property
    def active_settings(self) -> ActiveConfig:
        """Whom to ask, when, and for what."""
        assert self.config.active is not None
        return self.config.active

    @property
    def strategy(self) -> Strategy:
        """By which scans and planes are chosen."""
        return STRATEGIES[self.active_settings.strategy]

    def looks(self, identifiers: Sequence[str]) -> dict[str, Look]:
        """What is known of some scans, which ranks share out."""
        hidden = None if self.ranks.writes else True
        own = identifiers[self.ranks.part]
        bar = tqdm(own, "looking for scans to ask for", unit=" scans", leave=False, disable=hidden)
        return self.shared({identifier: self.look(identifier) for identifier in bar})

    def proposals(self, identifiers: Sequence[str]) -> dict[str, np.ndarray]:
        """Labels of the scans that were chosen, on their own grids; ranks share them out."""
        own = identifiers[self.ranks.part]
        return self.shared({identifier: self.on_own_grid(identifier, self.labels(identifier)) for identifier in own})

    def shared(self, own: dict[str, T]) -> dict[str, T]:
        """What all ranks have found, on all of them."""
        found: dict[str, T] = {}
        for of_rank in self.ranks.gather(own):
            found |= of_rank
        return found

    def look(self, identifier: str) -> Look:
        """Score and describe one scan as the strategy wants it. The student scores (paper)."""
        strategy, score = self.strategy, 0.0
        features = self.features(identifier) if strategy.features else None
        if strategy.score == "uncertainty":
            probs = self.probs(unwrap(self.network), identifier)
            score = uncertain_fraction(probs, uncertainty_threshold(self.progress))
        elif strategy.score == "disagreement":
            score = disagreement(self.labels(identifier), self.probs(self.teacher_module, identifier).argmax(0))
        return Look(score, features)

    def labels(self, identifier: str) -> np.ndarray:
        """(X, Y, Z): what the student predicts; all background for a strategy that needs no model."""
        if not self.strategy.needs_model:
            return np.zeros(self.image(identifier).shape[1:], np.uint8)
        return self.probs(unwrap(self.network), identifier).argmax(0).astype(np.uint8)

    def features(self, identifier: str) -> np.ndarray:
        """What the strategy compares the scan with others by."""
        grid = TrainingGrid.from_properties(self.properties(identifier), self.plans_manager, self.configuration_manager)
        return self.strategy.describe(self.image(identifier), grid.spacing)

    # ---- scans on the training grid, and back

    def image(self, identifier: str) -> np.ndarray:
        """(channels, X, Y, Z), preprocessed."""
        return preprocessed.image(Path(self.preprocessed_dataset_folder), identifier)

    def properties(self, identifier: str) -> dict[str, Any]:
        """What nnU-Net's preprocessor stored for a scan."""
        return preprocessed.properties(Path(self.preprocessed_dataset_folder), identifier)

    def probs(self, network: torch.nn.Module, identifier: str) -> np.ndarray:
        """(C, X, Y, Z) of one network, which stays in the mode it was in."""
        training = network.training
        network.eval()
        image = torch.from_numpy(np.ascontiguousarray(self.image(identifier), np.float32))
        patch_size, half = self.configuration_manager.patch_size, self.config.cpu_bfloat16
        probs = SlidingWindows(image, network, patch_size, self.device, cpu_bfloat16=half).probs()
        network.train(training)
        return probs.numpy()

    def on_own_grid(self, identifier: str, values: np.ndarray) -> np.ndarray:
        """A map from the training grid on the scan's own."""
        managers = self.plans_manager, self.configuration_manager
        return labels_to_original_grid(values, self.properties(identifier), *managers)
