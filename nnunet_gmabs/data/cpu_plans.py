"""Small plans for training on a CPU: nnU-Net's planner with a small memory target, patch and network included."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_gmabs.data.record import preprocessing_key
from nnunet_gmabs.files import write_json

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

CPU_PLANS = "nnUNetPlansCPU"
# 0.3 to 0.5 s for forward and backward pass on two cores: the estimate that nnU-Net's planner makes of a network with
# 16 features and two patches of 40 x 56 x 40 voxels.
MEMORY_TARGET_GB = 0.6
BASE_FEATURES = 16
MAX_FEATURES = 128


def make_cpu_plans(pre: Path, full: PlansManager) -> dict[str, Any]:
    """Plan with nnU-Net's ExperimentPlanner for a CPU, and write nnUNetPlansCPU.json.

    A configuration that preprocesses scans exactly as the full plans do shares their data folder; only patch, batch
    and network differ.

    Args:
        pre: nnUNet_preprocessed/DatasetXXX_Name with the fingerprint.
        full: the plans to share data with.

    Returns:
        The plans.
    """
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.utilities.json_export import recursive_fix_for_json_export
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    class CPUPlanner(ExperimentPlanner):
        def __init__(self) -> None:
            super().__init__(Path(pre).name, gpu_memory_target_in_gb=MEMORY_TARGET_GB, plans_name=CPU_PLANS)
            self.UNet_base_num_features = BASE_FEATURES
            self.UNet_max_features_2d = self.UNet_max_features_3d = MAX_FEATURES
            self.max_dataset_covered = 0  # keeps the batch at nnU-Net's minimum of 2

        def save_plans(self, plans: dict[str, Any]) -> None:
            recursive_fix_for_json_export(plans)

    plans = CPUPlanner().plan_experiment()
    plans["experiment_planner_used"] = ExperimentPlanner.__name__  # one that stock nnU-Net finds by name
    small = PlansManager(plans)
    for name, configuration in plans["configurations"].items():
        if "inherits_from" not in configuration and name in full.available_configurations:
            theirs = full.get_configuration(name)
            if preprocessing_key(small, small.get_configuration(name)) == preprocessing_key(full, theirs):
                configuration["data_identifier"] = theirs.data_identifier
    write_json(Path(pre) / f"{CPU_PLANS}.json", plans)
    return plans
