"""Verify, plan and preprocess a data set whose labels are sparse, or bring a prepared one up to date.

Takes a data set in nnU-Net's raw format. Voxels with the ignore label are not labelled; images without a file in
labelsTr are unlabelled scans. What nnU-Net's own commands train on is written, and beside it the expert labels on
the training grid. A second run rebuilds only what changed, also while a training is running.

    gmabs prepare -d 4 -c 3d_fullres --cpu
    gmabs prepare -d 4                            later: what is prepared already, brought up to date
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments, with nnU-Net's names where nnU-Net has one."""
    parser.add_argument("-d", dest="dataset", metavar="ID", required=True, help="ID, name or folder of the data set")
    parser.add_argument(
        "-c",
        dest="configurations",
        metavar="CONFIGURATION",
        nargs="+",
        default=(),
        help="configurations to preprocess (default: those prepared before; at first 2d, 3d_fullres and 3d_lowres, as "
        "far as planned)",
    )
    parser.add_argument(
        "-p", dest="plans", metavar="PLANS", help="name of the plans (default: those prepared for, else the planner's)"
    )
    parser.add_argument(
        "-pl",
        dest="planner",
        metavar="PLANNER",
        default="ExperimentPlanner",
        help="planner of nnU-Net for plans that do not exist yet (default: ExperimentPlanner)",
    )
    parser.add_argument(
        "--cpu", action="store_true", help="also make small plans for training without a GPU, named nnUNetPlansCPU"
    )
    parser.add_argument(
        "--cpu-seconds",
        metavar="S",
        type=float,
        default=0.2,
        help="training step on two cores that these plans aim for (default: 0.2)",
    )
    parser.add_argument(
        "-np", dest="processes", metavar="N", type=int, help="scans at the same time (default: nnUNet_def_n_proc)"
    )
    parser.add_argument(
        "--replan", action="store_true", help="make fingerprint and plans again, and all data that they change"
    )


def run(args: argparse.Namespace) -> None:
    """Prepare, and say what was done."""
    from nnunet_gmabs.data.prepare import PrepareOptions, prepare

    options = PrepareOptions(
        dataset=args.dataset,
        configurations=tuple(args.configurations),
        plans=args.plans,
        planner=args.planner,
        cpu=args.cpu,
        cpu_seconds=args.cpu_seconds,
        processes=args.processes,
        replan=args.replan,
    )
    result = prepare(options, print)
    print(f"ready in {result.pre}")
    print(f"  gmabs status -d {args.dataset}    shows the planes of every scan")
    print(f"  nnUNetv2_train {args.dataset} CONFIGURATION 0 -tr nnUNetTrainerSparse -p {result.plans[-1]}")
