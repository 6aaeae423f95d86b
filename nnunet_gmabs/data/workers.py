"""Worker processes for one function over many scans, with a progress bar; in this process when one is enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from nnunet_gmabs.errors import InputError

Job = TypeVar("Job")
Result = TypeVar("Result")


class Workers:
    """A pool that starts when it is first needed and serves every step of a command.

    Starting a worker imports nnU-Net, which takes about ten seconds; hence one pool for all steps, and none for one
    process or one scan.

    Args:
        processes: how many scans at the same time.
    """

    def __init__(self, processes: int) -> None:
        self.processes = max(1, processes)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], description: str
    ) -> Iterator[tuple[Job, Result]]:
        """Pairs of job and result in the order in which they are done.

        Args:
            function: at the top of a module (it is pickled), taking one job.
            jobs: what it is called with.
            description: beside the progress bar, which shows only when there are jobs.

        Raises:
            InputError: if a worker dies.
        """
        from tqdm import tqdm

        if not jobs:
            return
        with tqdm(total=len(jobs), desc=description, unit="scan") as bar:
            for job, result in self._results(function, jobs):
                bar.update()
                yield job, result

    def _results(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[tuple[Job, Result]]:
        if min(self.processes, len(jobs)) == 1:
            yield from ((job, function(job)) for job in jobs)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.processes, mp_context=get_context("spawn"))
        futures = {self._pool.submit(function, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process died, probably because memory ran out; use fewer processes, for example -np 1"
            ) from error
        finally:
            for future in futures:
                future.cancel()
