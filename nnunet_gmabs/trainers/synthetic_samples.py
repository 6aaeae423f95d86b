"""Synthetic samples as a mixin: objects of the exemplars, pasted into unlabelled scans, are learned from as well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_gmabs.data.dataset import SparseDataset
from nnunet_gmabs.data.exemplar_loader import ExemplarLoader
from nnunet_gmabs.data.exemplars import drawn_voxels, find_exemplars
from nnunet_gmabs.data.expert import decode
from nnunet_gmabs.data.loader import TwoStreamLoader
from nnunet_gmabs.data.synthetic_scans import SyntheticScans
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.report.synthetic_samples import SyntheticPicture, draw_synthetic_samples

if TYPE_CHECKING:
    from nnunet_gmabs.trainers.base import nnUNetTrainerSparse as Base
else:
    Base = object

PICTURE = "synthetic_samples.png"
PICTURED = 4  # samples
AROUND = 12  # voxels around the pasted box in the picture


class SyntheticSamples(Base):
    """A share of the labelled samples is synthetic (SyntheticConfig), made in the data workers.

    class nnUNetTrainerX(SyntheticSamples, nnUNetTrainerY): Y's objective, on more and other labelled samples.
    """

    synthetic_scans: SyntheticScans | None = None

    def initialize(self) -> None:
        """Objects have classes; regions, which may overlap, are refused."""
        if self.label_manager.has_regions:
            raise NotImplementedError(
                f"{type(self).__name__} does not train region-based labels; use nnUNetTrainerMeanTeacher"
            )
        super().initialize()

    def get_dataloaders(self):
        """The two streams; the labelled one with synthetic samples."""
        if not self.scans.unlabelled:
            raise InputError(
                f"{type(self).__name__} needs unlabelled scans, and there are none; add scans without label files and "
                "run gmabs prepare, or train nnUNetTrainerSparse"
            )
        return super().get_dataloaders()

    def training_loader(self, data: SparseDataset, *args: Any, **options: Any) -> TwoStreamLoader:
        """A loader that also makes synthetic samples."""
        settings = self.config.synthetic
        if settings is None or settings.share == 0:
            return super().training_loader(data, *args, **options)
        folder = Path(self.preprocessed_dataset_folder)
        drawn, dense = drawn_voxels(folder.parent, folder.name, self.scans.labelled)
        classes = {
            str(name): int(label)
            for name, label in self.dataset_json["labels"].items()
            if label in self.label_manager.foreground_labels
        }
        exemplars = find_exemplars(settings.exemplars, drawn, dense, classes)
        if not exemplars:
            self.print_to_log_file(
                "WARNING: no synthetic samples: no densely labelled scan shows every class, and objects known on "
                "planes did harm where that was measured (docs/cmems.md). Label one scan densely; or name scans in "
                "synthetic.exemplars, and their objects are pasted all the same"
            )
            return super().training_loader(data, *args, **options)
        self.print_to_log_file(f"objects of synthetic samples are cut out of {', '.join(exemplars)}")
        _, flat, _, _ = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        spacing = list(self.configuration_manager.spacing)
        if len(spacing) == 2:
            spacing = [self.plans_manager.original_median_spacing_after_transp[0], *spacing]
            flat = True
        self.synthetic_scans = SyntheticScans(data, exemplars, settings, spacing, flat)
        return ExemplarLoader(self.synthetic_scans, *args, synthetic_share=settings.share, **options)

    def on_train_start(self) -> None:
        """Also a picture of synthetic samples, for a person to judge."""
        super().on_train_start()
        file = Path(self.output_folder, PICTURE)
        wanted = self.synthetic_scans is not None and (self._resume_from is None or not file.is_file())
        if wanted and self.ranks.writes:
            assert self.synthetic_scans is not None
            draw_synthetic_samples(file, self._pictures(self.synthetic_scans))

    def _pictures(self, scans: SyntheticScans) -> list[SyntheticPicture]:
        """Some samples, cropped to what is pasted; drawn apart from the training's."""
        rng = np.random.default_rng([*self.entropy, 1])
        pictures = []
        for _ in range(PICTURED):
            identifier = str(rng.choice(self.scans.unlabelled))
            image, labels, _, _, (start, stop) = scans.make(identifier, rng)
            low, high = np.maximum(start - AROUND, 0), np.minimum(stop + AROUND, labels.shape[1:])
            box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
            before = np.array(scans.scans.load_case(identifier)[0][(slice(0, 1), *box)])[0]
            after, drawn = image[(slice(None), *box)][0], decode(labels[(slice(None), *box)])[0]
            pictures.append(SyntheticPicture(identifier, before, after, drawn, scans.unknown, scans.spacing))
        return pictures
