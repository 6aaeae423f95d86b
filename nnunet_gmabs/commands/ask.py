"""Ask an expert for planes in scans that are most worth drawing.

A round is written to gmabs/requests in the raw data set: which planes of which scans and why, and for each scan a
folder for 3D Slicer and ITK-SNAP. Paint with `gmabs annotate` or there, then `gmabs merge`.

    gmabs ask -d 4 --scans 4                           before there is any model (cold-start)
    gmabs ask -d 4 --scans 4 --from MODEL_FOLDER       random scans, planes at random through what the model predicts
    gmabs ask -d 4 --scans 4 --from MODEL_FOLDER --strategy uncertainty-diverse

MODEL_FOLDER is nnU-Net's folder of a training, nnUNet_results/DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION, or a
fold_X in it. Strategies: random, foreground-random (the default with a model), uncertainty, uncertainty-diverse,
disagreement, cold-start (the default without). The same seed gives the same choice.

What the model finds in each scan is kept in gmabs/looks of the raw data set, so that a command that was killed goes on
where it was. Several processes can share the looking as with nnUNetv2_predict: -num_parts 4 -part_id 0 ... 3, all with
the same other options. The one that finds all scans looked at chooses, and writes the round.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_gmabs.commands.parts import add_part_arguments, part_of
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import only_one
from nnunet_gmabs.wording import count

if TYPE_CHECKING:
    from nnunet_gmabs.annotation.raw_folder import RawFolder
    from nnunet_gmabs.annotation.requests import Request
    from nnunet_gmabs.commands.asking import AskOptions
    from nnunet_gmabs.commands.looks import Looks
    from nnunet_gmabs.commands.model import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-d", dest="dataset", metavar="ID", required=True, help="ID, name or folder of the data set")
    parser.add_argument("--scans", type=int, required=True, metavar="K", help="how many scans")
    parser.add_argument(
        "--planes", type=int, metavar="N", default=3, help="planes in each; 3 = one on each axis (default); 2D: 1"
    )
    parser.add_argument("--strategy", metavar="NAME", help="default: foreground-random with --from, else cold-start")
    parser.add_argument(
        "--from", dest="model", type=Path, metavar="MODEL_FOLDER", help="the model whose predictions are looked at"
    )
    parser.add_argument("--against", type=Path, metavar="MODEL_FOLDER", help="the other model, for disagreement")
    parser.add_argument("-f", dest="folds", nargs="+", metavar="FOLD", help="folds of the model (default: all)")
    parser.add_argument(
        "-chk",
        "--checkpoint",
        dest="checkpoint",
        metavar="CHECKPOINT",
        help="file in the folds' folders (default: checkpoint_final.pth, else ..._best.pth, else ..._latest.pth)",
    )
    parser.add_argument(
        "--plane-choice",
        choices=("middle", "information", "random"),
        help="how planes are chosen (default: as the strategy says)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    parser.add_argument("--budget", type=int, metavar="PLANES", help="ask for at most so many planes")
    parser.add_argument("--labelled-too", action="store_true", help="also more planes in scans labelled already")
    add_part_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Choose, write the round, and say what was chosen and why."""
    from tqdm import tqdm

    from nnunet_gmabs.active.select import STRATEGIES
    from nnunet_gmabs.annotation.journal import require_writable
    from nnunet_gmabs.annotation.raw_folder import RawFolder, find_raw_folder
    from nnunet_gmabs.commands.asking import AskOptions, look_at_part
    from nnunet_gmabs.commands.looks import Looks
    from nnunet_gmabs.config import ActiveConfig
    from nnunet_gmabs.data.cases import check_dataset_json

    part = part_of(args)
    raw = RawFolder(find_raw_folder(args.dataset))
    check_dataset_json(raw)  # as `gmabs prepare` will: nobody draws with an ignore label that it refuses
    require_writable(raw.folder)
    strategy = args.strategy or (ActiveConfig.strategy if args.model else "cold-start")
    options = AskOptions(
        strategy, args.scans, args.planes, args.seed, args.plane_choice, args.labelled_too, args.budget
    )
    models = load_models(raw, args, strategy)
    looks = Looks(raw, STRATEGIES[strategy], models) if STRATEGIES[strategy].looks else None
    model_name = str(args.model.resolve()) if args.model else None

    def progress(scans: Sequence[str]) -> Iterable[str]:
        return tqdm(scans, "looking at scans", unit="scan", leave=False)

    if args.num_parts == 1:
        tell(raw, choose(raw, options, models, model_name, looks, progress), args.dataset)
        return 0
    if looks is None:
        raise InputError(f"--strategy {strategy} chooses without looking at scans; leave out -num_parts")
    if (number := looks.asked(options)) is not None:
        print(f"round {number} was asked by these looks already; for another round leave out -num_parts")
        return 0
    left = look_at_part(raw, options, models, looks, part, progress)
    if left:
        print(
            f"part {args.part_id} is done; {count(left, 'scan is', 'scans are')} left to other parts, "
            "the last of which asks the round"
        )
        return 0
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(only_one(looks.folder / ".choosing.lock", "another part, which asks the round,"))
        except InputError as error:
            print(f"part {args.part_id} is done; {error}")
            return 0
        if (number := looks.asked(options)) is not None:
            print(f"part {args.part_id} is done; round {number} was asked by another part")
            return 0
        tell(raw, choose(raw, options, models, model_name, looks, progress), args.dataset)
    return 0


def choose(
    raw: RawFolder,
    options: AskOptions,
    models: Sequence[Model],
    model_name: str | None,
    looks: Looks | None,
    progress: Callable[[Sequence[str]], Iterable[str]],
) -> Request:
    """Choose by looks, which are taken where they are missing, and write the round."""
    from nnunet_gmabs.annotation.rounds import next_round, write_round
    from nnunet_gmabs.commands.asking import make_request

    request, proposals = make_request(raw, options, models, model_name, progress, looks)
    if looks is not None:
        looks.note(options, request, next_round(raw))
    return write_round(raw, request, proposals)


def load_models(raw: RawFolder, args: argparse.Namespace, strategy: str) -> list[Model]:
    """The models that the strategy asks, checked to know the data set's classes.

    Raises:
        InputError: if one is missing, or knows other classes.
    """
    from nnunet_gmabs.commands.model import Model

    if args.model is None:
        return []
    models = [Model(args.model, args.folds, args.checkpoint)]
    if strategy == "disagreement":
        members = models[0].members() if args.against is None else []
        models = members[:2] if len(members) > 1 else models
        if args.against is not None:
            models.append(Model(args.against, checkpoint=args.checkpoint))
    for model in models:
        known, wanted = ({n: v for n, v in labels.items() if n != "ignore"} for labels in (model.labels, raw.labels))
        if known != wanted:
            raise InputError(f"{model.folder}: knows the classes {known}, but {raw.folder.name} has {wanted}")
    return models


def tell(raw: RawFolder, request: Request, dataset: str) -> None:
    """Say what was chosen, why, and what it will cost."""
    from nnunet_gmabs.active.select import MINUTES_PER_PLANE, painting_minutes
    from nnunet_gmabs.annotation.ledger import measured_minutes_per_plane, read_events
    from nnunet_gmabs.annotation.requests import round_folder

    for scan in request.scans:
        score = "" if scan.score is None else f", score {scan.score:.4g}"
        print(f"{scan.identifier}: {scan.reason}{score}")
        for plane in scan.planes:
            print(f"  axis {plane.axis} index {plane.index_orig}: {plane.reason}")
    measured = measured_minutes_per_plane(read_events(raw.folder))
    minutes = painting_minutes(request.number_of_planes, measured or MINUTES_PER_PLANE)
    source = "as measured here" if measured else "a guess"
    print(
        f"round {request.round}: {count(len(request.scans), 'scan')}, {count(request.number_of_planes, 'plane')}, "
        f"about {minutes:.0f} minutes of painting ({measured or MINUTES_PER_PLANE:.1f} a plane, {source})"
    )
    if raw.ignore_label is None and any(raw.label_path(scan).is_file() for scan in raw.scans()):
        print(  # `gmabs prepare` finds an ignore label from now on, and no longer says so
            f'dataset.json got "ignore": {raw.dataset_json_with_ignore()[1]}. Scans with labels count as drawn '
            "everywhere; if 0 also means not drawn in them, run `gmabs import` first"
        )
    print(round_folder(raw.folder, request.round))
    print(f"  gmabs annotate -d {dataset}    paint in the browser")
    print(f"  gmabs merge -d {dataset}       when it is done")
