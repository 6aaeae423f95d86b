"""Write nnU-Net's postprocessing.pkl for a sparsely labelled data set, for predictions of any model.

    gmabs postprocessing -d 4
    nnUNetv2_apply_postprocessing -i IN -o OUT -pp_pkl_file $nnUNet_preprocessed/Dataset004_X/postprocessing.pkl

Classes that the drawn planes show in one piece keep their largest part. Trainings of this package write such a file
into their own folder by themselves. Do not apply it to what may occur several times in a scan, such as lesions: a few
planes can show each of them in one piece.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_gmabs.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments, with nnU-Net's names where nnU-Net has one."""
    parser.add_argument("-d", dest="dataset", metavar="ID", required=True, help="ID, name or folder of the data set")
    parser.add_argument(
        "-o", dest="output", metavar="FILE", type=Path, help="default: postprocessing.pkl of the preprocessed data set"
    )


def run(args: argparse.Namespace) -> int:
    """Look at labelsTr, write the file, and say what it does."""
    from nnunet_gmabs.annotation.raw_folder import RawFolder, find_raw_folder
    from nnunet_gmabs.data.cases import preprocessed_folder, read_made_labels
    from nnunet_gmabs.files import sha256
    from nnunet_gmabs.postprocessing import FILE, write

    raw = RawFolder(find_raw_folder(args.dataset))
    if raw.ignore_label is None:
        raise InputError(
            f"{raw.folder / 'dataset.json'}: has no ignore label, so the labels are dense; "
            "use nnUNetv2_find_best_configuration"
        )
    if any(isinstance(label, list) for label in raw.dataset_json["labels"].values()):
        raise InputError(f"{raw.folder / 'dataset.json'}: has regions, which may overlap; only classes are looked at")
    output = args.output or preprocessed_folder(raw.folder) / FILE
    if not output.parent.is_dir():
        raise InputError(f"{output.parent}: no such folder; run gmabs prepare, or name another file with -o")
    made = read_made_labels(raw.folder)  # for unlabelled scans, so they say nothing
    labels = {name: path for name in raw.scans() if (path := raw.label_path(name)).is_file()}
    files = [path for name, path in labels.items() if made.get(name) != sha256(path)]
    if not files:
        raise InputError(f"{raw.folder / 'labelsTr'}: no label file, so nothing is known; draw some planes first")
    classes = write(output, (raw.read_labels(path)[0] for path in files), raw.ignore_label)
    for name, label in raw.labels.items():
        if 0 < label < raw.ignore_label:
            print(f"  {name}: {'the largest part is kept' if label in classes else 'as it is'}")
    print(f"made from {len(files)} label files: {output}")
    return 0
