"""nnU-Net's post-processing, decided from sparse labels.

nnU-Net keeps the largest part of a class where that improves the predictions of its validation scans
(nnUNetv2_find_best_configuration), which takes dense labels. Here the planes that an expert drew decide: a class that
they show in one piece keeps its largest part. The file is nnU-Net's own, so that plain nnU-Net applies it:

    nnUNetv2_apply_postprocessing -i PREDICTIONS -o OUT -pp_pkl_file postprocessing.pkl
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nnunet_gmabs.files import replace_atomically
from nnunet_gmabs.generalist.parts import smallest_parts

FILE = "postprocessing.pkl"


def write(path: Path, drawn: Iterable[np.ndarray], ignore_label: int) -> list[int]:
    """Write what nnUNetv2_apply_postprocessing reads; the classes of which it keeps the largest part.

    These are the classes that the drawn planes show in one piece (generalist/parts.py).

    Args:
        path: of the file; replaced atomically.
        drawn: labels of scans, each (X, Y, Z) int, ignore_label where nothing is drawn.
        ignore_label: of the data set.
    """
    from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation

    classes = [label for label, share in enumerate(smallest_parts(drawn, ignore_label), 1) if share == 1]
    steps = [remove_all_but_largest_component_from_segmentation] * len(classes)
    content = pickle.dumps((steps, [{"labels_or_regions": label} for label in classes]))
    replace_atomically(path, lambda temporary: Path(temporary).write_bytes(content))
    return classes
