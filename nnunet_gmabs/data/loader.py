"""Batches of two streams: patches around an expert's labels, and patches of unlabelled scans."""

from __future__ import annotations

import random

import numpy as np
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from nnunet_gmabs.data.data_workers import TellsErrors


class TwoStreamLoader(TellsErrors, nnUNetDataLoader):
    """nnU-Net's loader with labelled samples first in each batch, then unlabelled ones.

    The first batches can be all labelled. From then on the labelled share of samples is exact over time, also
    where the batch is odd or 1: batch number n has floor(L(n + 1)) - floor(L(n)) labelled samples, with
    L(n) = B (min(n, w) + share max(n - w, 0)) and w the number of all-labelled batches. Which of them are centred
    on foreground follows nnU-Net's rule as if labelled samples alone filled its batches of P, one after the other, so
    that trainers with other batches on the same plans centre as many of them.

    Several processes may share a batch: this one makes a part of its samples, and B is the size of the whole.

    Args (beside nnU-Net's):
        unlabelled: identifiers of the unlabelled stream.
        labelled: identifiers of the labelled stream.
        labelled_share: in (0, 1].
        all_labelled_batches: w, of this loader (one data worker sees its part of all batches).
        batches_drawn: before this loader, in a training that is continued.
        seed: entropy for data workers, together with rank and the worker's number.
        whole_batch_size: B; nnU-Net's batch_size when None.
        plans_batch_size: P; B when None.
        part: which of the samples 0 ... B - 1 this loader makes, batch_size of them.

    A batch is nnU-Net's dictionary, "labelled": (B,) bool, and, where the data set has pseudo labels, "pseudo":
    (B, 1, X, Y[, Z]) with the ignore label where nothing is known.
    """

    def __init__(
        self,
        *args,
        labelled: list[str],
        unlabelled: list[str],
        labelled_share: float,
        seed: tuple[int, ...],
        all_labelled_batches: int = 0,
        batches_drawn: int = 0,
        whole_batch_size: int | None = None,
        plans_batch_size: int | None = None,
        part: slice = slice(None),
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.labelled, self.unlabelled = sorted(labelled), sorted(unlabelled)
        self.labelled_share = labelled_share
        self.seed = seed
        self.all_labelled_batches = all_labelled_batches
        self.batches_drawn = batches_drawn
        self.whole_batch_size = self.batch_size if whole_batch_size is None else whole_batch_size
        self.plans_batch_size = self.whole_batch_size if plans_batch_size is None else plans_batch_size
        self._numbers = range(self.whole_batch_size)[part]  # of this loader's samples in the whole batch
        if len(self._numbers) != self.batch_size:
            raise ValueError(f"{part} of {self.whole_batch_size} samples are not the {self.batch_size} of batch_size")
        self._labelled_before = self._labelled_after = 0
        self._sample = 0
        self.get_do_oversample = self._centre_on_foreground  # nnU-Net chooses its rule as an instance attribute

    def set_thread_id(self, thread_id: int) -> None:
        """Called once in each data worker: forked workers would all draw the same numbers otherwise."""
        super().set_thread_id(thread_id)
        entropy = np.random.SeedSequence((*self.seed, thread_id))
        for_torch, for_numpy, for_python = entropy.generate_state(3).tolist()
        torch.manual_seed(for_torch)
        np.random.seed(for_numpy)
        random.seed(for_python)

    def get_indices(self) -> list[str]:
        """Identifiers of one batch, drawn with replacement: the labelled samples first."""
        self._labelled_before = self._labelled_samples(self.batches_drawn)
        self._labelled_after = self._labelled_samples(self.batches_drawn + 1)
        self.batches_drawn += 1
        draw = np.random.choice
        return [
            str(draw(self.labelled if self._is_labelled(sample) else self.unlabelled))
            for sample in range(self.batch_size)
        ]

    def _labelled_samples(self, batches: int) -> int:
        """floor(L(batches)); a tiny addition, because 3 * (1 / 3) samples are one, whatever binary fractions say."""
        full = min(batches, self.all_labelled_batches)
        return int(self.whole_batch_size * (full + self.labelled_share * (batches - full)) + 1e-6)

    def _centre_on_foreground(self, sample: int) -> bool:
        """Whether a sample is centred on foreground; called by nnU-Net once before each crop, in order."""
        self._sample = sample
        return self._is_labelled(sample) and self._oversample(self._labelled_number(sample))

    def _oversample(self, number: int) -> bool:
        """nnU-Net's rule for the sample of a number in batches of P that follow each other."""
        first = round(self.plans_batch_size * (1 - self.oversample_foreground_percent))
        return number % self.plans_batch_size >= first

    def _labelled_number(self, sample: int) -> int:
        """How many labelled samples all processes have made before this one."""
        return self._labelled_before + self._numbers[sample]

    def _is_labelled(self, sample: int) -> bool:
        return self._numbers[sample] < self._labelled_after - self._labelled_before

    def get_bbox(self, data_shape, force_fg, class_locations, overwrite_class=None, verbose=False):
        """nnU-Net's box around a labelled voxel; anywhere in the scan for unlabelled samples."""
        has_ignore = self.has_ignore
        try:
            self.has_ignore = has_ignore and self._is_labelled(self._sample)
            return super().get_bbox(data_shape, force_fg, class_locations, overwrite_class, verbose)
        finally:
            self.has_ignore = has_ignore

    def generate_train_batch(self) -> dict:
        """nnU-Net's batch and which of its samples belong to the labelled stream."""
        batch = super().generate_train_batch()
        batch["labelled"] = torch.tensor([self._is_labelled(i) for i in range(self.batch_size)])
        if getattr(self._data, "pseudo_labels", None) is not None:
            several = isinstance(batch["target"], list)
            both = batch["target"][0] if several else batch["target"]
            expert, batch["pseudo"] = both[:, :1], both[:, 1:]
            batch["target"] = [expert, *batch["target"][1:]] if several else expert
        return batch
