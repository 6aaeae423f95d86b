"""nnUNetv2_predict for benchmarks on a CPU: the same command, but several windows of a scan in one pass.

    python scripts/benchmark_predict.py -i IN -o OUT -d ID -c 3d_fullres -f 0 -tr TRAINER -p PLANS -device cpu ...

nnU-Net passes one window at a time. For a batch of one small image torch takes a slow 3D convolution on CPUs, so that
predicting takes as long as a short training. All else is nnU-Net's own; tests/test_benchmark_predict.py compares.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from nnunetv2.inference import predict_from_raw_data
from torch import Tensor

WINDOWS = 4  # in a pass


class BatchedPredictor(predict_from_raw_data.nnUNetPredictor):
    """nnU-Net's predictor; does not mirror, as its --disable_tta."""

    def _internal_predict_sliding_window_return_logits(
        self, data: Tensor, slicers: list[tuple], do_on_device: bool = True
    ) -> Tensor:
        self.logits = self._passes(data, slicers)
        return super()._internal_predict_sliding_window_return_logits(data, slicers, do_on_device)

    def _internal_maybe_mirror_and_predict(self, x: Tensor) -> Tensor:
        return next(self.logits)

    def _passes(self, data: Tensor, slicers: list[tuple]) -> Iterator[Tensor]:
        """(1, C, X, Y, Z) for each window, in their order; a window that is alone is doubled."""
        for first in range(0, len(slicers), WINDOWS):
            windows = torch.stack([data[s] for s in slicers[first : first + WINDOWS]]).to(self.device)
            doubled = windows.expand(2, *windows.shape[1:]) if len(windows) == 1 else windows
            yield from self.network(doubled)[: len(windows)].split(1)


if __name__ == "__main__":
    predict_from_raw_data.nnUNetPredictor = BatchedPredictor
    predict_from_raw_data.predict_entry_point()
