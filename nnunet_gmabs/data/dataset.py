"""A scan for training: nnU-Net's preprocessed image with the expert's labels on the training grid."""

from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_gmabs.data.expert import class_locations, expert_file, read_expert
from nnunet_gmabs.data.pseudo_labels import newest_pseudo_labels


class SparseDataset(nnUNetDatasetBlosc2):
    """nnU-Net's data set whose label map is the expert file instead of nnU-Net's resampled one.

    Files are opened at every call, so a label that arrives during a training is seen at the next batch.

    Args:
        folder: preprocessed data of the configuration (<data set>/<data_identifier>).
        identifiers: scans.
        label_manager: nnU-Net's, for the keys under which its loader looks up voxels.
        pseudo_labels: folder of their rounds (data/pseudo_labels.py); they become a second channel of the label map,
            as nnU-Net's cascades have it for a previous stage. None: no such channel.
        own_expert: folder whose expert files come before those of the data set, or None.
    """

    def __init__(
        self,
        folder: str,
        identifiers: list[str],
        label_manager: LabelManager,
        pseudo_labels: Path | None = None,
        own_expert: Path | None = None,
    ) -> None:
        super().__init__(folder, list(identifiers))
        self.pseudo_labels, self.own_expert = pseudo_labels, own_expert
        self.ignore_label = label_manager.ignore_label
        classes = label_manager.foreground_regions if label_manager.has_regions else label_manager.foreground_labels
        self.labels_by_key: dict[int | tuple[int, ...], tuple[int, ...]] = {}
        for group in [*classes, (-1, *label_manager.all_labels)]:
            labels = tuple(map(int, group)) if isinstance(group, (list, tuple)) else (int(group),)
            key = labels if isinstance(group, (list, tuple)) else labels[0]
            self.labels_by_key[key] = labels  # -1 is no label of the expert file; nnU-Net has it in this key

    def load_case(self, identifier: str):
        """Arrays on disk, and where classes are.

        Returns:
            image (channels, X, Y, Z), expert labels (1, X, Y, Z), pseudo labels (X, Y, Z) or None,
            {"class_locations": ...}.
        """
        folder = Path(self.source_folder)
        image = blosc2.open(
            urlpath=str(folder / f"{identifier}.b2nd"), mode="r", dparams={"nthreads": 1}, **self.mmap_kwargs
        )
        labels, metadata = read_expert(expert_file(folder.parent, folder.name, identifier, self.own_expert))
        by_label, voxels = class_locations(metadata), metadata["voxels"]
        # nnU-Net's keys: each class or region, and tuple([-1] + all labels) for "any labelled voxel"
        locations = {key: _merge(by_label, voxels, group) for key, group in self.labels_by_key.items()}
        return image, labels, self._pseudo(identifier, labels.shape[1:]), {"class_locations": locations}

    def _pseudo(self, identifier: str, shape: tuple[int, ...]) -> blosc2.NDArray | np.ndarray | None:
        """The newest pseudo labels; all unknown, without memory, where there are none yet."""
        if self.pseudo_labels is None:
            return None
        newest = newest_pseudo_labels(self.pseudo_labels, identifier, shape)
        return np.broadcast_to(np.int16(self.ignore_label), shape) if newest is None else newest


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
