"""Write networks of one training as a model folder that stock nnU-Net predicts with.

    gmabs export -m $nnUNet_results/Dataset004_X/nnUNetTrainerCMEMS__nnUNetPlans__3d_fullres/fold_0 --ensemble
    nnUNetv2_predict -d 4 -c 3d_fullres -tr nnUNetTrainerCMEMSEnsemble -f 0 1 -i IN -o OUT

The two networks that taught each other become folds 0 and 1, whose predictions nnU-Net averages. --network writes
another choice: each named network becomes a fold, in that order.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from nnunet_gmabs.errors import InputError, first_line

if TYPE_CHECKING:
    from collections.abc import Sequence

ENSEMBLE = ("student", "peer")
FILES = ("plans.json", "dataset.json")  # what prediction needs beside the folds
KEYS = ("init_args", "trainer_name", "inference_allowed_mirroring_axes", "current_epoch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments, with nnU-Net's names where nnU-Net has one."""
    parser.add_argument("-m", dest="fold", metavar="FOLD", type=Path, required=True, help="a training's folder fold_X")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--ensemble", action="store_true", help="both networks of a training with mutual teaching")
    which.add_argument("--network", nargs="+", metavar="NAME", help="student, peer or teacher, one fold each")
    parser.add_argument(
        "-o", dest="output", metavar="OUT", type=Path, help="model folder to write (default: beside, named ...Ensemble)"
    )
    parser.add_argument(
        "-chk",
        dest="checkpoint",
        metavar="CHECKPOINT",
        default="checkpoint_final.pth",
        help="file in FOLD (default: checkpoint_final.pth)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the folder, and print the command that predicts with it."""
    networks = ENSEMBLE if args.ensemble else tuple(args.network)
    fold = args.fold.resolve()  # "." has no parent
    output = args.output or default_output(fold)
    export(fold, args.checkpoint, networks, output)
    folds = " ".join(str(i) for i in range(len(networks)))
    print(f"written: {output} ({', '.join(f'fold {i}: {name}' for i, name in enumerate(networks))})")
    model = quote(str(output))
    print(f"predict: nnUNetv2_predict_from_modelfolder -m {model} -f {folds} -chk {args.checkpoint} -i IN -o OUT")
    return 0


def default_output(fold: Path) -> Path:
    """Beside the model folder, under a trainer's name of its own, so that `nnUNetv2_predict -tr` finds it."""
    trainer, *rest = fold.parent.name.split("__")
    return fold.parent.with_name("__".join([f"{trainer}Ensemble", *rest]))


def export(fold: Path, checkpoint: str, networks: Sequence[str], output: Path) -> None:
    """Write one fold for each network, with nnU-Net's own keys only.

    Raises:
        InputError: no such checkpoint, not one of ours, a network that it does not hold, the folder is there, or the
            disk is full.
    """
    import torch

    content = _load(fold / checkpoint)
    stored = content["gmabs"]["networks"]
    missing = [name for name in networks if name not in stored]
    if missing:
        raise InputError(f"{fold / checkpoint}: holds {', '.join(stored)}, no {missing[0]!r}")
    absent = [fold.parent / name for name in FILES if not (fold.parent / name).is_file()]
    if absent:
        raise InputError(f"{absent[0]}: not there; nnU-Net writes it beside its folds")
    if output.exists():
        raise InputError(f"{output}: is there already; remove it, or name another folder with -o")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=output.parent) as unfinished:
        made = Path(unfinished, output.name)
        made.mkdir()
        for name in FILES:
            shutil.copyfile(fold.parent / name, made / name)
        for number, name in enumerate(networks):
            exported = {key: content[key] for key in KEYS} | {"network_weights": stored[name]}
            (made / f"fold_{number}").mkdir()
            try:
                torch.save(exported, made / f"fold_{number}" / checkpoint)
            except RuntimeError as error:  # how torch reports a full disk
                raise InputError(f"{output}: could not be written ({first_line(error)}); make room") from error
        made.rename(output)


def _load(file: Path) -> dict[str, Any]:
    import torch

    if not file.is_file():
        raise InputError(f"{file}: not there; name a fold's folder with -m, and a file in it with -chk")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise InputError(f"{file}: cannot be read ({first_line(error)})") from error
    if "gmabs" not in content:
        raise InputError(f"{file}: was not written by a trainer of nnunet_gmabs; predict with it as it is")
    return content
