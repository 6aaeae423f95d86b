"""Several processes of one test, which talk to each other by gloo as those of a training do."""

import faulthandler
import multiprocessing
import pickle
import tempfile
import time
import traceback
from datetime import timedelta
from pathlib import Path

from torch import distributed as dist

SECONDS = 300  # only a guard: on a busy machine a minute is not enough
PRELOADED = ["nnunetv2.run.run_training", "nnunet_gmabs.trainers.variants"]


def in_processes(number, folder, function, *args, preload=PRELOADED, seconds=SECONDS):
    """Call a function of a module in so many processes; what it returned in each, by rank.

    Args:
        number: of processes.
        folder: an empty one, where they meet.
        function: called with args in each; dist is initialized.
        args: picklable.
        preload: modules imported once for all.
        seconds: until all are killed.

    Raises:
        AssertionError: with the traceback of the first process that failed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preload)
    place = Path(tempfile.mkdtemp(dir=folder))
    children = [context.Process(target=_child, args=(place, r, number, function, args)) for r in range(number)]
    for child in children:
        child.start()
    try:
        end = time.monotonic() + seconds
        for child in children:
            child.join(max(0.0, end - time.monotonic()))
        codes = [child.exitcode for child in children]
        results = [pickle.loads(path.read_bytes()) for path in sorted(place.glob("rank_*"))]
        for _, error in results:
            assert error is None, error
        assert len(results) == number, f"exit codes {codes}"
        return [result for result, _ in results]
    finally:
        for child in children:
            child.kill()


def _child(place, rank, number, function, args):
    store = f"file://{place}/store"
    faulthandler.enable()
    faulthandler.dump_traceback_later(SECONDS - 10)  # says where it waits for the others
    dist.init_process_group("gloo", store, rank=rank, world_size=number, timeout=timedelta(seconds=SECONDS))
    try:
        result, error = function(*args), None
    except Exception:
        result, error = None, f"rank {rank}: {traceback.format_exc()}"
    (place / f"rank_{rank}").write_bytes(pickle.dumps((result, error)))
    faulthandler.cancel_dump_traceback_later()
    if error is None:
        dist.barrier()
        dist.destroy_process_group()
