"""Which link of GM-ABS is weak: pseudo labels of a trained specialist, with one link at a time replaced by the truth.

    python scripts/study_links.py WORK CELL [--scans 24]

WORK and CELL are of scripts/benchmark.py: the folder, and the name of a cell whose student is the specialist, such as
8-scans-x-3-planes_MeanTeacher_seed0. Prints the Dice of fused labels with labelsTr_dense over that many unlabelled
scans, for each class. Only a temporary folder is written.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

TRAINER = "nnUNetTrainerGMABS"
Edit = Callable[[Any, np.ndarray], Any]  # (what the specialist says, dense labels) -> what is prompted with


def with_prompts(specialist: Any, truth: np.ndarray) -> Any:
    """Prompts of the truth."""
    return replace(specialist, labels=truth.astype(np.int16))


def with_prior(specialist: Any, truth: np.ndarray) -> Any:
    """The truth as prior, 0.95 and 0.05."""
    return replace(
        specialist, probs=np.stack([truth == k for k in range(len(specialist.probs))]) * np.float32(0.9) + 0.05
    )


def without_prior(specialist: Any, truth: np.ndarray) -> Any:
    """A prior that says nothing."""
    return replace(specialist, probs=np.full_like(specialist.probs, 0.5))


# name, changed settings, whether the generalist is asked, what replaces what the specialist says
LINKS: list[tuple[str, dict[str, Any], bool, Edit | None]] = [
    ("specialist, all parts", {"min_part": 0.0}, False, None),
    ("specialist, largest parts", {"min_part": 1.0}, False, None),
    ("generalist, parts from a tenth on", {"min_part": 0.1}, True, None),
    ("generalist, largest parts", {"min_part": 1.0}, True, None),
    ("generalist, all views agree", {"min_part": 0.1, "fusion": "unanimous"}, True, None),
    ("specialist, prototypes of the scan", {"min_part": 0.0, "regions": "prototypes"}, False, None),
    ("generalist, prototypes of the scan", {"min_part": 0.0, "regions": "prototypes"}, True, None),
    ("prompts of the truth", {}, True, with_prompts),
    ("prior of the truth", {"min_part": 0.1}, True, with_prior),
    ("prompts of the specialist, no prior", {"min_part": 0.1}, True, without_prior),
    ("prompts of the truth, no prior", {}, True, lambda s, t: with_prompts(without_prior(s, t), t)),
]


def build(work: Path, cell: str) -> Any:
    """A GM-ABS trainer of the cell's data whose student is the cell's."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    threads = os.environ.get("OMP_NUM_THREADS", str(torch.get_num_threads()))
    torch.set_num_threads(int(threads.split(",")[0]))  # may list threads of nested regions
    checkpoint = next((work / "results" / cell).glob("*/*/fold_0/checkpoint_final.pth"))
    dataset, model = checkpoint.parts[-4], checkpoint.parts[-3].split("__")
    trainer = get_trainer_from_args(dataset, model[2], 0, TRAINER, model[1], device=torch.device("cpu"))
    trainer.initialize()
    trainer.network.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu")["network_weights"])
    trainer.network.decoder.deep_supervision = False
    return trainer


def main() -> None:
    """Replace, label, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("cell")
    parser.add_argument("--scans", type=int, default=24)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    settings = {"relabel": {"truth": "logged", "max_unlabelled": args.scans}}
    (folder / "settings.json").write_text(json.dumps(settings))
    work = args.work.resolve()
    os.environ |= {f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed")}
    os.environ |= {"nnUNet_results": str(folder), "nnUNet_n_proc_DA": "0"}
    os.environ["nnUNet_gmabs_config"] = str(folder / "settings.json")
    from nnunet_gmabs.generalist import relabel
    from nnunet_gmabs.trainers import relabelling

    trainer = build(work, args.cell)
    scans = replace(relabelling.training_scans(trainer), labelled=[])
    for number, (name, changed, asked, edit) in enumerate(LINKS):
        relabeller = replace(
            trainer.relabeller.on(scans),
            settings=replace(trainer.relabel_settings, **changed),
            folder=folder / str(number),
            generalist=trainer.relabeller.generalist if asked else None,
        )
        assert relabeller.truth is not None
        order = iter(relabeller.missing(1))  # a round asks about its scans in this order
        says, truth = relabel.specialist_of, relabeller.truth

        def replaced(
            *given: Any, says: Any = says, edit: Edit | None = edit, order: Any = order, truth: Any = truth
        ) -> Any:
            answer, identifier = says(*given), next(order)
            return answer if edit is None else edit(answer, truth(identifier))

        with mock.patch.object(relabel, "specialist_of", replaced):
            figures, _ = relabeller.run(trainer.network, 1)
        dice = [f"{100 * value:.1f}" for key, value in figures.items() if key.startswith("true_dice/")]
        print(f"{name:40s} {'  '.join(dice)}", flush=True)


if __name__ == "__main__":
    main()
