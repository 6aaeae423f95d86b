"""Data workers whose own error is the last that is read when one of them fails."""

from __future__ import annotations

import multiprocessing
import traceback
from typing import Any

from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter

LONGEST = 8000  # characters of a traceback: what a pipe takes without a reader


class TellsErrors:
    """Mixin of a loader: an error in a data worker also goes to the process that trains."""

    errors: Any = None  # multiprocessing.SimpleQueue of the workers' parent

    def __next__(self) -> Any:
        """The next batch."""
        try:
            return super().__next__()  # type: ignore[misc]
        except Exception:
            if self.errors is not None:
                self.errors.put(traceback.format_exc()[-LONGEST:])
            raise


class DataWorkers(NonDetMultiThreadedAugmenter):
    """nnU-Net's worker processes.

    Where nnU-Net only says that a worker is no longer alive, and that the reason was printed above, this says the
    reason: the worker's traceback, or the signal that has killed it.
    """

    def __init__(self, data_loader: TellsErrors, *args: Any, **kwargs: Any) -> None:
        super().__init__(data_loader, *args, **kwargs)
        self.errors = data_loader.errors = multiprocessing.SimpleQueue()

    def __next__(self) -> Any:
        """The next batch.

        Raises:
            RuntimeError: a worker has failed or was killed.
        """
        if not self.initialized:
            self._start()
        processes = self._processes
        try:
            return super().__next__()
        except RuntimeError as error:
            raise RuntimeError(self._reason(processes)) from error

    def _reason(self, processes: list[Any]) -> str:
        if not self.errors.empty():
            return f"a data worker failed; its own error:\n{self.errors.get()}"
        killed = [f"{process.pid} (signal {-process.exitcode})" for process in processes if (process.exitcode or 0) < 0]
        return (
            f"a data worker was killed: process {', '.join(killed) or 'unknown'}. If nobody did it, memory ran out: "
            "take fewer workers (environment variable nnUNet_n_proc_DA), and continue the training with --c"
        )
