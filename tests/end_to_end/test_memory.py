"""A long training takes no more memory than a short one."""

import os

import numpy as np
import pytest
import tiny
from tiny import Training

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux's /proc"),
]
EPOCHS, ROUNDS = 60, 12
SETTLED = 15  # epochs after which pools and caches have their size
MAY_GROW_MIB = 8.0


def resident_mib():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def note_memory():
    """Runs in the child: resident memory after each epoch goes into a file."""
    from nnunet_gmabs.trainers.gmabs import nnUNetTrainerGMABS as trainer

    original = trainer.on_epoch_end

    def on_epoch_end(self):
        original(self)
        with open(os.path.join(self.output_folder, "memory.txt"), "a") as f:
            f.write(f"{resident_mib()}\n")

    trainer.on_epoch_end = on_epoch_end


def test_resident_memory_does_not_grow_over_fifty_epochs_and_ten_rounds(project, tmp_path):
    settings = {
        **{"num_epochs": EPOCHS, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1, "save_every": 5},
        "relabel": {"first": 0.0, "first_iterations": 0, "every": 1 / ROUNDS, "until": 0.99},
        "generalist": {"name": "walker"},
    }
    one = Training(project, tmp_path, "nnUNetTrainerGMABS", settings=settings)
    assert one.in_child(note_memory) == 0
    mib = np.loadtxt(one.output / "memory.txt")
    assert len(mib) == EPOCHS and one.log().count("relabelled, round") >= 10
    early, late = np.median(mib[SETTLED : SETTLED + 10]), np.median(mib[-10:])
    assert late - early < MAY_GROW_MIB, f"from {early:.0f} to {late:.0f} MiB: {np.round(mib[::5])}"
    assert tiny.load(one.final)
    print(f"resident MiB, epochs 16 to 25: {early:.1f}, last ten: {late:.1f}")
