"""Show for every scan which planes are drawn, and that all of them are on the training grid.

Planes are counted for axes 0, 1, 2 in nnU-Net's order. A drawn plane that is missing on the training grid is an
error. Planes outside the box of non-zero voxels that nnU-Net keeps cannot be trained on, and are named.

    gmabs status -d 4
    gmabs status -d 4 -p nnUNetPlansCPU -c 3d_fullres
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.wording import count

if TYPE_CHECKING:
    from nnunet_gmabs.annotation.raw_folder import RawFolder
    from nnunet_gmabs.data.audit import Drawn
    from nnunet_gmabs.data.build import DataFolder
    from nnunet_gmabs.data.cases import Case


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments, with nnU-Net's names where nnU-Net has one."""
    parser.add_argument("-d", dest="dataset", metavar="ID", required=True, help="ID, name or folder of the data set")
    parser.add_argument("-p", dest="plans", metavar="PLANS", help="name of the plans (default: those prepared for)")
    parser.add_argument(
        "-c", dest="configuration", metavar="CONFIGURATION", help="configuration (default: every prepared one)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the tables; 1 when something drawn is lost."""
    from nnunet_gmabs.annotation.raw_folder import RawFolder, find_raw_folder
    from nnunet_gmabs.data.audit import count_drawn
    from nnunet_gmabs.data.cases import check_dataset_json, find_cases, preprocessed_folder

    raw = RawFolder(find_raw_folder(args.dataset))
    check_dataset_json(raw)
    cases = find_cases(raw)
    drawn: dict[str, Drawn] = {}
    for case in cases:
        if case.label_sha256 and not case.made:
            drawn[case.identifier] = count_drawn(raw.read_labels(case.label_file)[0], raw.ignore_label)
    labelled = [case for case in cases if case.identifier in drawn and drawn[case.identifier].voxels]
    print(
        f"{raw.folder.name}: {count(len(cases), 'scan')}, {len(labelled)} labelled, "
        f"{len(cases) - len(labelled)} unlabelled"
    )
    _print_classes(raw, drawn)
    _print_rounds(raw)
    _print_simulated(raw)
    folders = prepared_folders(preprocessed_folder(raw.folder), args.plans, args.configuration)
    if not folders:
        print(f"not prepared yet; run: gmabs prepare -d {args.dataset}")
        _print_table([[case.identifier, *_drawn_columns(drawn[case.identifier])] for case in labelled], HEAD[:5])
    losses = [_print_folder(folder, raw, labelled, drawn) for folder in folders]
    return 1 if any(losses) else 0


HEAD = ["scan", "planes drawn", "voxels drawn", "", "classes", "on the training grid", "voxels", "remarks"]


def prepared_folders(pre: Path, plans: str | None, configuration: str | None) -> list[DataFolder]:
    """The data folders that `gmabs prepare` made, for these plans or (None) for any.

    Raises:
        InputError: if plans or configuration that are asked for are not prepared.
    """
    from nnunet_gmabs.data.build import DataFolder
    from nnunet_gmabs.data.planning import load_plans
    from nnunet_gmabs.data.record import all_records, read_record

    folders: dict[str, DataFolder] = {}
    used = sorted({record["plans"] for record in all_records(pre)})
    for plans_name in [plans] if plans else [name for name in used if (pre / f"{name}.json").is_file()]:
        plans_manager = load_plans(pre, plans_name)
        for name in plans_manager.available_configurations:
            if name == configuration or (
                configuration is None and plans_manager.get_configuration(name).previous_stage_name is None
            ):
                folder = DataFolder(pre, plans_manager, name)
                if read_record(pre, folder.data_identifier):
                    folders.setdefault(folder.data_identifier, folder)
    if configuration and not folders:
        raise InputError(f"-c {configuration}: not prepared; run `gmabs prepare -c {configuration}`")
    return list(folders.values())


def _print_folder(folder: DataFolder, raw: RawFolder, labelled: list[Case], drawn: dict[str, Drawn]) -> bool:
    """Print the table of one configuration; True when something drawn is lost."""
    from nnunet_gmabs.data import preprocessed
    from nnunet_gmabs.data.audit import compare, per_axis
    from nnunet_gmabs.data.expert import expert_file, read_expert

    rows, outdated, gone, lost = [], [], [], []
    for case in labelled:
        columns = [case.identifier, *_drawn_columns(drawn[case.identifier])]
        if not (folder.path / f"{case.identifier}.pkl").is_file():  # never prepared, or removed to save room
            gone.append(case.identifier)
            rows.append([*columns, "", "", "not prepared"])
            continue
        path = expert_file(folder.pre, folder.data_identifier, case.identifier)
        metadata: dict[str, Any] = {}
        if path.is_file():
            values, metadata = read_expert(path)
        if metadata.get("source_sha256") != case.label_sha256:
            outdated.append(case.identifier)
            rows.append([*columns, "", "", "not prepared since it was drawn"])
            continue
        found = compare(
            raw.read_labels(case.label_file)[0],
            values[...],
            preprocessed.properties(folder.path, case.identifier),
            folder.plans_manager,
            folder.configuration_manager,
            raw.ignore_label,
        )
        remarks = [f"LOST {_name(found.lost)}"] if found.lost else []
        remarks += [f"LOST {count(found.lost_voxels, 'voxel')}"] if found.lost_voxels and not found.lost else []
        remarks += [f"outside the non-zero box: {_name(found.outside)}"] if found.outside else []
        if found.lost or found.lost_voxels:
            lost.append(case.identifier)
        rows.append([*columns, _counts(per_axis(found.planes)), f"{found.voxels:,}", "; ".join(remarks)])
    spacing = " x ".join(f"{s:g}" for s in folder.configuration_manager.spacing)
    print(f"\n{folder.configuration} ({folder.data_identifier}, {spacing} mm)")
    _print_table(rows, HEAD)
    if outdated:
        print(f"{count(len(outdated), 'scan')} changed since prepared; run: gmabs prepare -d {raw.folder.name}")
    if gone:
        print(f"data of {count(len(gone), 'scan')} are not there; run: gmabs prepare -d {raw.folder.name}")
    if lost:
        print(
            f"ERROR: something drawn is missing on the training grid in {', '.join(lost)}; prepare again, report this"
        )
    return bool(lost)


def _print_classes(raw: RawFolder, drawn: dict[str, Drawn]) -> None:
    for name, value in raw.labels.items():
        if name != "ignore":
            values = set(value if isinstance(value, list) else [value])
            scans = sum(bool(values & set(d.classes)) for d in drawn.values())
            print(f"  {name} ({value}): drawn in {count(scans, 'scan')}{'' if scans else ', so it cannot be learned'}")


def _print_rounds(raw: RawFolder) -> None:
    """What was asked of experts, and what has become of it; nothing where nobody was asked."""
    from nnunet_gmabs.annotation.ledger import merged_now, planes_of, read_events
    from nnunet_gmabs.annotation.requests import arrived_answers, existing_rounds, read_request, round_folder

    events = read_events(raw.folder)
    for number in existing_rounds(raw.folder):
        request = read_request(raw.folder, number)
        answered = sum(len(answer.planes_done) for answer in arrived_answers(round_folder(raw.folder, number)))
        merged = [e for scan in request.scans for e in merged_now(events, scan.identifier) if e["round"] == number]
        planes = len({(event["scan"], plane) for event in merged for plane in planes_of(event)})
        print(
            f"  round {number} ({request.strategy}): {count(len(request.scans), 'scan')}, "
            f"{count(request.number_of_planes, 'plane')} asked for, {answered} answered, {planes} merged"
        )


def _print_simulated(raw: RawFolder) -> None:
    """What trainings asked simulated experts, in one line; nothing where none did, or nnUNet_results is not set."""
    from nnunet_gmabs.commands.report import results_folder
    from nnunet_gmabs.report.page.asked_by_training import asked_simulated, read_asked
    from nnunet_gmabs.report.page.reading import Damaged
    from nnunet_gmabs.report.page.trainings import find_trainings

    results, damaged = results_folder(raw), Damaged()
    folders = [folder for folder in find_trainings(results) if asked_simulated(folder)] if results else []
    asked = [found for folder in folders if (found := damaged.read(folder, read_asked, folder))]
    for message in damaged.messages:
        print(f"  left out: {message}")
    if asked:
        planes = sum(request.number_of_planes for rounds in asked for request, _ in rounds)
        print(
            f"  simulated experts, which change no labels here: trainings that asked: {len(asked)}, "
            f"rounds: {sum(map(len, asked))}, planes: {planes}; see gmabs report"
        )


def _drawn_columns(drawn: Drawn) -> list[str]:
    from nnunet_gmabs.data.audit import per_axis

    share = f"{100 * drawn.voxels / drawn.size:.2f} %"
    return [_counts(per_axis(drawn.planes)), f"{drawn.voxels:,}", share, " ".join(map(str, drawn.classes))]


def _counts(counts: tuple[int, int, int]) -> str:
    return " ".join(map(str, counts))


def _name(planes: list[tuple[int, int]]) -> str:
    return ", ".join(f"axis {axis} index {index}" for axis, index in planes)


def _print_table(rows: list[list[str]], head: list[str]) -> None:
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
