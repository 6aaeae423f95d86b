"""nnUNetv2_train in several processes that PyTorch's own launcher has started, on one machine or on several.

torchrun --nproc_per_node 2 -m nnunet_gmabs.train DATASET CONFIGURATION FOLD -tr nnUNetTrainerMeanTeacher [...]

All arguments are those of nnUNetv2_train, but for -num_gpus: torchrun says how many processes there are. On GPUs the
process with local rank k of a machine takes the k-th GPU that it sees. With -device cpu each process takes one core,
or as many as OMP_NUM_THREADS says, which torchrun sets to 1.
"""

from __future__ import annotations

import argparse
import os
from datetime import timedelta

from nnunet_gmabs.errors import InputError

TIMEOUT = timedelta(hours=2)  # for sums over ranks, and for nnU-Net's own barriers: validation shares out whole scans


def main() -> None:
    """Join the other processes, and do what nnUNetv2_train does.

    Raises:
        InputError: not started by torchrun, -num_gpus, or a trainer that is none of this package's.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-device", default="cuda")
    parser.add_argument("-num_gpus", type=int, default=1)
    parser.add_argument("-tr", default="nnUNetTrainer")
    parser.add_argument("-h", "--help", action="store_true")
    ours, _ = parser.parse_known_args()
    if not ours.help:
        check(ours.device, ours.num_gpus)
    from nnunetv2.run.run_training import run_training_entry

    if ours.help:
        run_training_entry()
    check_trainer(ours.tr)
    join(ours.device)
    run_training_entry()
    leave()


def check(device: str, num_gpus: int) -> None:
    """Raise InputError for what cannot be meant."""
    missing = [name for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name not in os.environ]
    if missing:
        raise InputError(
            f"{missing[0]} is not set: start this with torchrun --nproc_per_node N -m nnunet_gmabs.train ..., or train "
            "in one process with nnUNetv2_train"
        )
    if num_gpus != 1:
        raise InputError(f"-num_gpus {num_gpus}: leave it out; torchrun's --nproc_per_node says how many processes")
    if device not in ("cpu", "cuda"):
        raise InputError(f"-device {device}: several processes train on 'cuda' or 'cpu'")


def check_trainer(name: str) -> None:
    """Raise InputError for nnU-Net's own trainers, which take the rank over all machines for the number of a GPU."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunet_gmabs.trainers.distributed import DistributedTrainer

    if not issubclass(recursive_find_trainer_class_by_name(name), DistributedTrainer):
        raise InputError(f"-tr {name}: not a trainer of nnunet_gmabs; train it with nnUNetv2_train -num_gpus")


def join(device: str) -> None:
    """Wait for the other processes; on GPUs each takes its own."""
    import torch
    from torch import distributed as dist

    if device == "cuda":
        local_rank, found = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local_rank >= found:
            raise InputError(
                f"local rank {local_rank}, but torch sees {found} CUDA device(s) on this machine; set torchrun's "
                "--nproc_per_node to at most that many, or use -device cpu"
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)


def leave() -> None:
    """Wait until all are done: rank 0 computes the metrics of the final validation alone."""
    from torch import distributed as dist

    from nnunet_gmabs.trainers.ranks import Ranks

    Ranks().wait()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
