"""The one place where `gmabs ask` meets a trained model: probabilities of a scan, on the scan's own grid."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import sha256

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")  # the first that is there


class Model:
    """A model that nnU-Net has trained, used through nnU-Net's own predictor on the best device there is.

    Args:
        folder: nnU-Net's folder of a training (TRAINER__PLANS__CONFIGURATION), or one of its fold_X folders.
        folds: which folds to average; None means all that are there, or the one that folder names.
        checkpoint: name of the file; None means the final one, else the best, else the latest.

    Raises:
        InputError: if there is no such model.
    """

    def __init__(self, folder: Path, folds: list[str] | None = None, checkpoint: str | None = None) -> None:
        folder = Path(folder)
        if folder.name.startswith("fold_") and folds is None:
            folder, folds = folder.parent, [folder.name.removeprefix("fold_")]
        self.folder = folder
        self.checkpoint = checkpoint or _first_checkpoint(folder, folds)
        self.folds = folds or _folds_with(folder, self.checkpoint)
        if not self.folds:
            raise InputError(f"{folder}: holds no fold_X/{self.checkpoint}")
        for name in ("plans.json", "dataset.json", *(f"fold_{fold}/{self.checkpoint}" for fold in self.folds)):
            if not (folder / name).is_file():
                raise InputError(f"{folder / name} is missing; is this nnU-Net's folder of a finished training?")
        self._predictor = self._load()

    def made_from(self) -> dict[str, str]:
        """SHA-256 of each file that decides what it predicts."""
        names = ("plans.json", "dataset.json", *(f"fold_{fold}/{self.checkpoint}" for fold in self.folds))
        return {name: sha256(self.folder / name) for name in names}

    def members(self) -> list[Model]:
        """One model for each fold."""
        return [Model(self.folder, [fold], self.checkpoint) for fold in self.folds]

    @property
    def predictor(self) -> Any:
        """nnU-Net's own, with the network of the first fold on the CPU."""
        return self._predictor

    @property
    def labels(self) -> dict[str, Any]:
        """The classes that it knows, as in dataset.json."""
        return self._predictor.dataset_json["labels"]

    @property
    def has_regions(self) -> bool:
        """Whether its outputs are regions, which may overlap, instead of classes."""
        return self._predictor.label_manager.has_regions

    def predict_probabilities(self, image: np.ndarray, properties: dict[str, Any]) -> np.ndarray:
        """Probabilities of each class, or each region, on the scan's own grid.

        Args:
            image: (channels, X, Y, Z), as nnU-Net's reader returns it.
            properties: from the same reader.

        Returns:
            (C, X, Y, Z) float32.
        """
        _, probs = self._predictor.predict_single_npy_array(
            image.astype(np.float32), properties, save_or_return_probabilities=True
        )
        return np.asarray(probs, dtype=np.float32)

    def to_labels(self, probs: np.ndarray) -> np.ndarray:
        """(X, Y, Z) uint8 labels from probabilities."""
        import torch

        labels = self._predictor.label_manager.convert_probabilities_to_segmentation(torch.from_numpy(probs))
        return np.asarray(labels).astype(np.uint8)

    def _load(self) -> Any:
        import torch
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        on_gpu = torch.cuda.is_available()
        with contextlib.redirect_stdout(io.StringIO()):  # on a CPU it always says that there is no GPU
            predictor = nnUNetPredictor(
                device=torch.device("cuda" if on_gpu else "cpu"),
                perform_everything_on_device=on_gpu,
                use_mirroring=on_gpu,  # eight times the work, for scores that rank scans
                allow_tqdm=False,
            )
        predictor.initialize_from_trained_model_folder(str(self.folder), tuple(self.folds), self.checkpoint)
        return predictor


def _first_checkpoint(folder: Path, folds: list[str] | None) -> str:
    for name in CHECKPOINTS:
        there = _folds_with(folder, name)
        if there and set(folds or there) <= set(there):
            return name
    raise InputError(
        f"{folder}: holds no fold_X/{CHECKPOINTS[0]}; give nnU-Net's folder of a training, such as "
        "nnUNet_results/DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION"
    )


def _folds_with(folder: Path, checkpoint: str) -> list[str]:
    return sorted(path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{checkpoint}"))
