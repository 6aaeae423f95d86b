"""A scan for training: nnU-Net's preprocessed image with the expert's labels on the training grid."""

from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_gmabs.data.expert import class_locations, expert_file, read_expert


class SparseDataset(nnUNetDatasetBlosc2):
    """nnU-Net's data set whose label map is the expert file instead of nnU-Net's resampled one.

    Files are opened at every call, so a label that arrives during a training is seen at the next batch.

    Args:
        folder: preprocessed data of the configuration (<data set>/<data_identifier>).
        identifiers: scans.
        label_manager: nnU-Net's, for the keys under which its loader looks up voxels.
    """

    def __init__(self, folder: str, identifiers: list[str], label_manager: LabelManager) -> None:
        super().__init__(folder, list(identifiers))
        classes = label_manager.foreground_regions if label_manager.has_regions else label_manager.foreground_labels
        self.labels_by_key: dict[int | tuple[int, ...], tuple[int, ...]] = {}
        for group in [*classes, (-1, *label_manager.all_labels)]:
            labels = tuple(map(int, group)) if isinstance(group, (list, tuple)) else (int(group),)
            key = labels if isinstance(group, (list, tuple)) else labels[0]
            self.labels_by_key[key] = labels  # -1 is no label of the expert file; nnU-Net has it in this key

    def load_case(self, identifier: str):
        """(image (channels, X, Y, Z), expert labels (1, X, Y, Z), None, {"class_locations": ...}); arrays on disk."""
        folder = Path(self.source_folder)
        image = blosc2.open(
            urlpath=str(folder / f"{identifier}.b2nd"), mode="r", dparams={"nthreads": 1}, **self.mmap_kwargs
        )
        labels, metadata = read_expert(expert_file(folder.parent, folder.name, identifier))
        by_label, voxels = class_locations(metadata), metadata["voxels"]
        # nnU-Net's keys: each class or region, and tuple([-1] + all labels) for "any labelled voxel"
        locations = {key: _merge(by_label, voxels, group) for key, group in self.labels_by_key.items()}
        return image, labels, None, {"class_locations": locations}


def _merge(by_label: dict[int, np.ndarray], voxels: dict[str, int], labels: tuple[int, ...]) -> np.ndarray | list:
    """(n, 4) [0, x, y, z] of several labels in proportion to their voxel counts, as if drawn from their union."""
    present = [label for label in labels if label in by_label and len(by_label[label])]
    if not present:
        return []
    share = min(len(by_label[label]) / voxels[str(label)] for label in present)
    locations = np.concatenate([_thin_out(by_label[k], max(1, round(voxels[str(k)] * share))) for k in present])
    return np.concatenate([np.zeros_like(locations[:, :1]), locations], axis=1)


def _thin_out(rows: np.ndarray, number: int) -> np.ndarray:
    """That many rows, evenly spaced; all of them when there are not more."""
    return rows[np.linspace(0, len(rows) - 1, min(number, len(rows))).round().astype(int)]
