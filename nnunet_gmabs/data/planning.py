"""nnU-Net's plans of a data set: kept once they exist, made with nnU-Net's own planners otherwise."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_gmabs.data.record import CPU_PLANS, all_records
from nnunet_gmabs.errors import InputError

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_gmabs.annotation.raw_folder import RawFolder

logger = logging.getLogger(__name__)
DEFAULT_PLANNER = "ExperimentPlanner"


def find_planner(name: str) -> type:
    """nnU-Net's planner class of that name.

    Raises:
        InputError: if nnU-Net has none.
    """
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = os.path.join(nnunetv2.__path__[0], "experiment_planning")
    planner = recursive_find_python_class(folder, name, "nnunetv2.experiment_planning")
    if planner is None:
        raise InputError(f"-pl {name}: nnU-Net has no planner of that name; the default is {DEFAULT_PLANNER}")
    return planner


def default_plans_name(planner: type) -> str:
    """The name that a planner gives its plans when nobody asks for another."""
    import inspect

    return inspect.signature(planner).parameters["plans_name"].default


def plans_used_before(pre: Path, planner: type) -> str | None:
    """The plans that data were prepared for, where they are the only ones and the planner's own do not exist."""
    if (Path(pre) / f"{default_plans_name(planner)}.json").is_file():
        return None
    names = {record["plans"] for record in all_records(pre)} - {CPU_PLANS}
    return names.pop() if len(names) == 1 else None


def planner_used(path: Path) -> str | None:
    """The planner that made a file of plans, as it says itself; None where the file is missing or says nothing."""
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("experiment_planner_used")
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def check_same_channels(raw: RawFolder, pre: Path) -> None:
    """Raise InputError if channels were added since it was planned, or renamed to be normalised in another way."""
    from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

    try:
        planned = json.loads((Path(pre) / "dataset.json").read_text(encoding="utf-8"))["channel_names"]
    except (FileNotFoundError, ValueError, KeyError):  # nothing is known
        return
    old, new = list(planned.values()), list(raw.dataset_json["channel_names"].values())
    if [get_normalization_scheme(name) for name in old] != [get_normalization_scheme(name) for name in new]:
        raise InputError(
            f"{raw.folder / 'dataset.json'}: channel_names are {new}, but it was planned for {old}, and these are not "
            "normalised alike. Use --replan, which makes fingerprint, plans and data again; then train anew"
        )


def check_same_reader(path: Path, plans: PlansManager, reader_writer: type) -> None:
    """Raise InputError if the plans of this file read images by another class of nnU-Net than the raw data set now."""
    planned, now = plans.plans["image_reader_writer"], reader_writer.__name__
    if planned != now:
        raise InputError(
            f"{path}: was planned for images read by {planned}, but dataset.json and the first image ask for {now}, "
            "whose axes may run another way. Use --replan, which makes plans and data again"
        )


def make_plans(pre: Path, planner: type, plans_name: str) -> PlansManager:
    """Run one of nnU-Net's planners; it writes <plans_name>.json and dataset.json into the preprocessed folder."""
    with planner_environment():
        planner(Path(pre).name, plans_name=plans_name).plan_experiment()
    return load_plans(pre, plans_name)


def load_plans(pre: Path, plans_name: str) -> PlansManager:
    """Plans that exist.

    Raises:
        InputError: if they do not, or cannot be used.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    path = Path(pre) / f"{plans_name}.json"
    if not path.is_file():
        raise InputError(f"{path} is missing; run `gmabs prepare` (plans there: {', '.join(plans_in(pre)) or 'none'})")
    try:
        plans = PlansManager(str(path))
        plans.available_configurations, plans.transpose_forward, plans.plans_name  # noqa: B018 - they are read
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not usable ({error!r}); remove it and run `gmabs prepare`") from error
    return plans


def plans_in(pre: Path) -> list[str]:
    """Names of the plans in a preprocessed folder."""
    return sorted(path.stem for path in Path(pre).glob("*Plans*.json"))


@contextlib.contextmanager
def planner_environment() -> Iterator[None]:
    """What nnU-Net's planner prints goes to the log; and nnUNet_n_proc_DA=0 does not stop it.

    The planner takes that number, which is right for training without worker processes, for a number of threads,
    of which torch wants at least one.
    """
    before = os.environ.get("nnUNet_n_proc_DA")
    if before == "0":
        os.environ["nnUNet_n_proc_DA"] = "1"
    try:
        with quiet():
            yield
    finally:
        if before is not None:
            os.environ["nnUNet_n_proc_DA"] = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send to the log (level debug) what nnU-Net prints."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        if printed.getvalue().strip():
            logger.debug("%s", printed.getvalue().rstrip())
