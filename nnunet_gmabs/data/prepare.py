"""From nnU-Net's raw files to data that can be trained on: verify, label the unlabelled, plan, preprocess, split.

Nothing is written before everything has been verified; what fails later puts changed files back. A second run
rebuilds only what changed since the first.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_gmabs.annotation.raw_folder import RawFolder, find_raw_folder, raw_root
from nnunet_gmabs.data import fingerprint, planning
from nnunet_gmabs.data.build import Built, DataFolder, outdated_folders
from nnunet_gmabs.data.cases import Case, check_dataset_json, find_cases, preprocessed_folder, reader_writer_class
from nnunet_gmabs.data.cpu_plans import CPU_PLANS, STEP_SECONDS, make_cpu_plans
from nnunet_gmabs.data.expert import labelled_identifiers
from nnunet_gmabs.data.record import uses_fingerprint_intensities
from nnunet_gmabs.data.splits_file import SplitsFile
from nnunet_gmabs.data.unlabelled import apply_changes, plan_changes, with_made_labels
from nnunet_gmabs.data.verify import (
    Facts,
    check_former_ignore_labels,
    classes_never_labelled,
    known_facts,
    labelled_scans,
    verify_cases,
)
from nnunet_gmabs.data.workers import Workers
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import Rollback, only_one, replace_atomically

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

logger = logging.getLogger(__name__)
DEFAULT_CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")  # nnU-Net's own
MIN_CPU_SECONDS = 0.02  # a patch of 16 x 16 x 16, nnU-Net's planner knows no smaller one
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class PrepareOptions:
    """What `gmabs prepare` is asked for.

    Attributes:
        dataset: ID or name of a data set under nnUNet_raw.
        configurations: names; empty means those that are prepared already, or where there is none those that nnU-Net
            preprocesses, as far as the plans have them.
        plans: name of the plans; None means the planner's default.
        planner: name of nnU-Net's planner class.
        cpu: also make small plans for training on a CPU.
        cpu_seconds: time of a training step on two cores that these aim for.
        processes: scans at the same time; None means nnU-Net's default, at most one for each core.
        replan: make fingerprint and plans again, and rebuild what they change.
    """

    dataset: str
    configurations: tuple[str, ...] = ()
    plans: str | None = None
    planner: str = planning.DEFAULT_PLANNER
    cpu: bool = False
    cpu_seconds: float = STEP_SECONDS
    processes: int | None = None
    replan: bool = False


@dataclass
class Prepared:
    """What `gmabs prepare` did.

    Attributes:
        raw: the raw data set.
        pre: the preprocessed data set.
        plans: names of the plans, the small ones last.
        labelled: scans with labels, sorted.
        unlabelled: all others.
        folders: for each data identifier which scans were built, kept and removed.
    """

    raw: Path
    pre: Path
    plans: list[str] = field(default_factory=list)
    labelled: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    folders: dict[str, Built] = field(default_factory=dict)


def prepare(options: PrepareOptions, say: Callable[[str], None] = logger.info) -> Prepared:
    """Prepare a data set, or bring a prepared one up to date.

    Args:
        options: what to do.
        say: gets one line for each thing worth knowing.

    Raises:
        InputError: if something is wrong with the data or the disk; files are as they were.
    """
    raw = RawFolder(Path(os.path.abspath(find_raw_folder(options.dataset))))
    if raw.folder.parent.resolve() != raw_root().resolve():  # the data set itself may be a link to another disk
        raise InputError(f"-d {options.dataset}: not under nnUNet_raw ({raw_root()}), where nnU-Net looks for it")
    if not MIN_CPU_SECONDS <= options.cpu_seconds < float("inf"):
        raise InputError(f"--cpu-seconds {options.cpu_seconds}: must be at least {MIN_CPU_SECONDS}")
    check_dataset_json(raw)
    pre = preprocessed_folder(raw.folder)
    rollback = Rollback()
    try:
        rollback.make_folder(pre)
        with only_one(pre / ".gmabs_prepare.lock", f"gmabs prepare for {raw.folder.name}"):
            with Workers(_processes(options)) as workers:
                return _Preparation(raw, pre, options, say, rollback, workers).run()
    except BaseException as error:
        rollback.restore()
        if isinstance(error, OSError) and error.errno in NO_ACCESS:
            raise InputError(f"{error.filename or pre}: {error.strerror}; make the folder writable") from error
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise InputError(f"{error.filename or pre}: {error.strerror}; make room and run again") from error
        raise


class _Preparation:
    """One run, step by step; the order of the steps is that of run()."""

    def __init__(
        self,
        raw: RawFolder,
        pre: Path,
        options: PrepareOptions,
        say: Callable[[str], None],
        rollback: Rollback,
        workers: Workers,
    ) -> None:
        self.raw, self.pre, self.options, self.say = raw, pre, options, say
        self.rollback, self.workers = rollback, workers
        self.planner = planning.find_planner(options.planner)
        self.splits = SplitsFile(raw.folder, pre, say)
        self.new_scans: set[str] = set()

    def run(self) -> Prepared:
        cases, facts, labelled = self.verify()
        cases = self.complete_raw(cases, facts)
        plans = self.plan(cases)
        folders = self.choose_folders(plans)
        without_ignore = fingerprint.is_without_ignore(self.pre)
        if self.raw.ignore_label is not None:
            self.check_intensities(folders, without_ignore)
        self.update_dataset_json()
        result = Prepared(self.raw.folder, self.pre, [p.plans_name for p in plans])
        for folder in folders:
            folder.check_foreign_files()
        for folder in folders:  # all of them first: after a kill in the middle the next run knows what was wanted
            folder.make_folders(self.rollback)
        for folder in folders:
            if folder.outdated_by_plans():
                self.say(f"{folder.path.name}: the plans changed, so all scans are rebuilt; stop trainings on them")
            built = folder.update(cases, facts, self.raw.dataset_json, without_ignore, self.workers, self.rollback)
            result.folders[folder.data_identifier] = built
            self.say(f"{folder.data_identifier}: {built}")
        result.labelled = self.labelled_on_training_grid(labelled, folders[0])
        result.unlabelled = sorted({case.identifier for case in cases} - set(result.labelled))
        self.say(f"{len(result.labelled)} labelled scans, {len(result.unlabelled)} unlabelled")
        self.splits.update(result.labelled, list(result.folders))
        for outdated in outdated_folders(self.pre, cases, result.folders):
            self.say(f"not up to date: {outdated}, before you train on it")
        return result

    def verify(self) -> tuple[list[Case], dict[str, Facts], list[str]]:
        """All checks that need nothing but the raw data set; writes nothing."""
        cases = find_cases(self.raw)
        known = known_facts(self.pre)
        facts = verify_cases(self.raw, cases, known, self.workers)
        check_former_ignore_labels(self.raw, cases, self.pre)
        self.new_scans = {case.identifier for case in cases} - set(known)
        ignore_label = plan_changes(self.raw, cases, facts).ignore_label
        labelled = labelled_scans(cases, facts, ignore_label)
        if not labelled:
            raise InputError(
                f"{self.raw.folder / 'labelsTr'}: no scan has a label; draw at least one plane in one scan and save "
                f"it there as <scan>{self.raw.file_ending}"
            )
        if not any(value not in (0, ignore_label) for i in labelled for value in facts[i].labels):
            raise InputError(f"{self.raw.folder / 'labelsTr'}: all labels are background; draw a plane with foreground")
        for name in classes_never_labelled(self.raw, facts, labelled):
            self.say(f"warning: class {name} is labelled in no scan, so it cannot be learned")
        self.splits.check([case.identifier for case in cases], labelled)
        return cases, facts, labelled

    def complete_raw(self, cases: list[Case], facts: dict[str, Facts]) -> list[Case]:
        """Label files for unlabelled scans, dataset.json, and nnU-Net's own verification of the result."""
        changes = plan_changes(self.raw, cases, facts)
        if changes.dataset_json and self.raw.ignore_label is None and changes.ignore_label is not None:
            self.say(
                f'dataset.json gets "ignore": {changes.ignore_label}, for scans without labels. Scans with labels '
                "count as drawn everywhere; if 0 also means not drawn in them, stop and run `gmabs import` first"
            )
        made = apply_changes(self.raw, changes, self.rollback, self.workers)
        self.raw = RawFolder(self.raw.folder)
        if self.new_scans:
            self.verify_with_nnunet()
        return with_made_labels(cases, facts, self.raw.ignore_label, made)

    def verify_with_nnunet(self) -> None:
        """nnU-Net's own check; ours should have caught everything before."""
        from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

        try:
            with planning.quiet():
                verify_dataset_integrity(str(self.raw.folder), self.workers.processes)
        except (AssertionError, RuntimeError) as error:
            raise InputError(f"{self.raw.folder}: nnU-Net's verification fails: {error}") from error

    def plan(self, cases: list[Case]) -> list[PlansManager]:
        """Fingerprint and plans: kept where they exist, unless asked to replan."""
        options = self.options
        # plans for a CPU that share data must not be left behind when it is planned again
        cpu = options.cpu or options.plans == CPU_PLANS or (options.replan and self.plans_file(CPU_PLANS).is_file())
        asked = None if options.plans == CPU_PLANS else options.plans
        named = asked or options.planner != planning.DEFAULT_PLANNER
        before = None if named else planning.plans_used_before(self.pre, self.planner)
        name = asked or before or planning.default_plans_name(self.planner)
        for path in (fingerprint.fingerprint_file(self.pre), self.plans_file(name), self.plans_file(CPU_PLANS)):
            self.rollback.remember(path)
        self.rollback.remember(self.pre / "dataset.json")
        self.splits.take_over(self.rollback)
        if options.replan or not fingerprint.fingerprint_file(self.pre).is_file():
            with planning.quiet():
                fingerprint.extract_fingerprint(self.pre, self.raw, cases, self.workers)
        else:
            planning.check_same_channels(self.raw, self.pre)
        plans = []
        if options.replan or not self.plans_file(name).is_file():
            plans.append(planning.make_plans(self.pre, self.planner_of(name), name))
            self.say(f"planned: {self.plans_file(name)}")
        else:
            plans.append(planning.load_plans(self.pre, name))
            planning.check_same_reader(self.plans_file(name), plans[0], reader_writer_class(self.raw, cases))
            self.say(f"kept: {self.plans_file(name)} (--replan makes fingerprint and plans again)")
        if cpu:
            if options.replan or not self.plans_file(CPU_PLANS).is_file():
                with planning.planner_environment():
                    make_cpu_plans(self.pre, plans[0], options.cpu_seconds)
                self.say(f"planned for a CPU: {self.plans_file(CPU_PLANS)}")
            elif options.cpu:
                kept = f"kept: {self.plans_file(CPU_PLANS)}, so --cpu-seconds changes nothing"
                self.say(f"{kept} (--replan makes all plans again)")
            plans.append(planning.load_plans(self.pre, CPU_PLANS))
        return plans

    def planner_of(self, name: str) -> type:
        """The planner that is asked for; where none is, and the plans exist, the one that made them."""
        path = self.plans_file(name)
        used = planning.planner_used(path)
        if self.options.planner != planning.DEFAULT_PLANNER or used in (None, planning.DEFAULT_PLANNER):
            return self.planner
        try:
            planner = planning.find_planner(used)
        except InputError as error:
            raise InputError(f"{path}: was made by {used}, which nnU-Net has not; name a planner with -pl") from error
        self.say(f"planner: {used}, as before (-pl names another)")
        return planner

    def plans_file(self, name: str) -> Path:
        return self.pre / f"{name}.json"

    def choose_folders(self, plans: list[PlansManager]) -> list[DataFolder]:
        """The data folders to bring up to date; plans that share one name it once."""
        folders: dict[str, DataFolder] = {}
        names = self.options.configurations or self.prepared_configurations(plans) or DEFAULT_CONFIGURATIONS
        for plan in plans:
            available = [name for name in names if name in plan.available_configurations]
            # small plans may lack 3d_lowres; what the full plans lack, the user is told
            for name in names if self.options.configurations and plan is plans[0] else available:
                folder = DataFolder(self.pre, plan, name)
                known = folders.setdefault(folder.data_identifier, folder)
                if known.key != folder.key:
                    raise InputError(
                        f"{self.plans_file(plan.plans_name)}: {name} shares {folder.data_identifier} with "
                        f"{known.plans_manager.plans_name}, but would preprocess it differently; use --replan"
                    )
        return list(folders.values())

    def prepared_configurations(self, plans: list[PlansManager]) -> list[str]:
        """Those whose data folder is there, whoever made it; of several that share one the first."""
        found: dict[str, str] = {}
        for plan in plans:
            for name in plan.available_configurations:
                configuration = plan.get_configuration(name)
                there = (self.pre / configuration.data_identifier).is_dir()
                if there and configuration.previous_stage_name is None:  # no cascade
                    found.setdefault(configuration.data_identifier, name)
        names = sorted(set(found.values()))
        if names:
            self.say(f"prepared before: {', '.join(names)} (-c names others)")
        return names

    def check_intensities(self, folders: list[DataFolder], without_ignore: bool) -> None:
        """Whether intensities of ignored voxels would be normalised by.

        Raises:
            InputError: if they would; plans with other intensities than the fingerprint's are named only, for they may
                be of another data set.
        """
        path = fingerprint.fingerprint_file(self.pre)
        by_fingerprint = [f for f in folders if uses_fingerprint_intensities(f.configuration_manager)]
        if by_fingerprint and not without_ignore:
            raise InputError(
                f"{path}: made by stock nnU-Net, which counts ignored voxels as "
                "foreground; CT would be normalised by wrong intensities. Use --replan, which makes fingerprint, "
                "plans and data again; or, for plans of another data set, remove this file, which keeps them"
            )
        for name, plans in {f.plans_manager.plans_name: f.plans_manager for f in by_fingerprint}.items():
            if plans.foreground_intensity_properties_per_channel != fingerprint.intensities(self.pre):
                self.say(
                    f"warning: {self.plans_file(name)} normalises by other intensities than {path.name} has of what is "
                    "drawn. That is right for plans of another data set, or of fewer labels; if stock nnU-Net made "
                    f"them, it counted ignored voxels as foreground: use -p {name} --replan"
                )

    def update_dataset_json(self) -> None:
        """nnU-Net's copy of dataset.json in the preprocessed folder follows the raw one."""
        path = self.pre / "dataset.json"
        content = (self.raw.folder / "dataset.json").read_bytes()
        if not path.is_file() or path.read_bytes() != content:
            replace_atomically(path, lambda temporary: temporary.write_bytes(content))

    def labelled_on_training_grid(self, labelled: Sequence[str], folder: DataFolder) -> list[str]:
        """The scans that have labels inside what nnU-Net keeps of them; the others are named.

        Raises:
            InputError: if there is none.
        """
        found = labelled_identifiers(self.pre, folder.data_identifier, labelled)
        reason = "every label lies outside the box of non-zero voxels that nnU-Net keeps"
        if not found:
            raise InputError(f"{', '.join(labelled)}: {reason}; draw a plane through the body")
        for identifier in sorted(set(labelled) - set(found)):
            self.say(f"warning: {identifier}: {reason}, so the scan counts as unlabelled")
        return found


def _processes(options: PrepareOptions) -> int:
    if options.processes is not None:
        if options.processes < 1:
            raise InputError(f"-np {options.processes}: must be 1 or more")
        return options.processes
    from nnunetv2.configuration import default_num_processes

    return max(1, min(default_num_processes, os.cpu_count() or 1))
