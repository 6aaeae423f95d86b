"""Small plans for training on a CPU: nnU-Net's planner with a small memory target, patch and network included."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_gmabs.data.record import CPU_PLANS, preprocessing_key
from nnunet_gmabs.files import write_json

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

STEP_SECONDS = 0.2  # hippocampus: patch 32 x 40 x 32, batch 2, features 16 to 128
# nnU-Net's estimate of a network (feature map voxels of one patch) for each second of a training step with two
# patches on two cores. Measured with 16 base features: 3.6 M 0.14 s, 7.0 M 0.28 s, 9.8 M 0.39 s, 12.0 M 0.46 s.
ESTIMATE_PER_SECOND = 25e6
BASE_FEATURES = 16
MAX_FEATURES = 128


def make_cpu_plans(pre: Path, full: PlansManager, step_seconds: float = STEP_SECONDS) -> dict[str, Any]:
    """Plan with nnU-Net's ExperimentPlanner for a CPU, and write nnUNetPlansCPU.json.

    A configuration that preprocesses scans exactly as the full plans do shares their data folder; only patch, batch
    and network differ.

    Args:
        pre: nnUNet_preprocessed/DatasetXXX_Name with the fingerprint.
        full: the plans to share data with.
        step_seconds: time of a training step on two cores to aim for, for a 3D configuration. The patch is chosen
            by it, the batch is 2.

    Returns:
        The plans.
    """
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.utilities.json_export import recursive_fix_for_json_export
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    class CPUPlanner(ExperimentPlanner):
        def __init__(self) -> None:
            super().__init__(Path(pre).name, plans_name=CPU_PLANS)
            self.UNet_vram_target_GB = (
                step_seconds * ESTIMATE_PER_SECOND / self.UNet_reference_val_3d * self.UNet_reference_val_corresp_GB
            )
            self.UNet_base_num_features = BASE_FEATURES
            self.UNet_max_features_2d = self.UNet_max_features_3d = MAX_FEATURES

        def get_plans_for_configuration(self, spacing: Any, *args: Any) -> dict[str, Any]:
            plan = super().get_plans_for_configuration(spacing, *args)
            if len(spacing) == 3:
                plan["batch_size"] = self.UNet_min_batch_size  # small data would get a small patch and a large batch
            return plan

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
