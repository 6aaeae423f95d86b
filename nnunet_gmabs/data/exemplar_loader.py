"""Batches whose labelled samples are of labelled scans and of synthetic ones in a fixed proportion."""

from __future__ import annotations

import numpy as np

from nnunet_gmabs.data.loader import TwoStreamLoader
from nnunet_gmabs.data.synthetic_scans import PREFIX, SyntheticScans


class ExemplarLoader(TwoStreamLoader):
    """TwoStreamLoader in which a share of the labelled samples is synthetic, exactly over time.

    Labelled sample number n is synthetic when floor((n + 1) share) > floor(n share). Each kind is centred on
    foreground by nnU-Net's rule as if it alone filled batches, so that neither kind takes all centred samples.

    Args (beside TwoStreamLoader's):
        data: gives synthetic scans, too.
        synthetic_share: in [0, 1].
    """

    def __init__(self, data: SyntheticScans, *args, synthetic_share: float, **kwargs) -> None:
        super().__init__(data, *args, **kwargs)
        self.synthetic_share = synthetic_share

    def get_indices(self) -> list[str]:
        """Identifiers of one batch; a synthetic sample's is that of an unlabelled scan with a prefix."""
        names = super().get_indices()
        for sample in range(len(names)):
            if self._is_labelled(sample) and self._is_synthetic(self._labelled_number(sample)):
                names[sample] = PREFIX + str(np.random.choice(self.unlabelled))
        return names

    def _synthetic_before(self, number: int) -> int:
        """How many of the first labelled samples are synthetic."""
        return int(number * self.synthetic_share + 1e-6)

    def _is_synthetic(self, number: int) -> bool:
        return self._synthetic_before(number + 1) > self._synthetic_before(number)

    def _centre_on_foreground(self, sample: int) -> bool:
        self._sample = sample
        number = self._labelled_number(sample)
        synthetic = self._synthetic_before(number)
        within_kind = synthetic if self._is_synthetic(number) else number - synthetic
        return self._is_labelled(sample) and self._oversample(within_kind)
