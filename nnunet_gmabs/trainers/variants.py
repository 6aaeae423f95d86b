"""Ablations and presets: trainers that differ from another in their settings alone."""

from dataclasses import replace

from nnunet_gmabs.config import StreamsConfig
from nnunet_gmabs.presets import (
    CMEMS,
    GM_ABS,
    GM_ABS_ACTIVE,
    GM_ABS_ACTIVE_PAPER,
    GM_ABS_MUTUAL,
    GM_ABS_PAPER,
    GM_ABS_SYNTHETIC,
    MEAN_TEACHER_PAPER,
    MEAN_TEACHER_SYNTHETIC,
    SPARSE,
    SPARSE_SYNTHETIC,
    with_changed,
)
from nnunet_gmabs.trainers.asking import AsksExpert
from nnunet_gmabs.trainers.base import nnUNetTrainerSparse
from nnunet_gmabs.trainers.gmabs import nnUNetTrainerGMABS
from nnunet_gmabs.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_gmabs.trainers.mutual import nnUNetTrainerCMEMS
from nnunet_gmabs.trainers.mutual_teaching import MutualTeaching
from nnunet_gmabs.trainers.synthetic_samples import SyntheticSamples


class nnUNetTrainerSparseHalfBatch(nnUNetTrainerSparse):
    """Sees as many labelled samples as MeanTeacherPaper, and nothing else."""

    config = replace(SPARSE, streams=StreamsConfig(labelled_share=1.0, batch_share=0.5))


class nnUNetTrainerMeanTeacherPaper(nnUNetTrainerMeanTeacher):
    """GM-ABS's supervision and consistency with the weights of its released program."""

    config = MEAN_TEACHER_PAPER


class nnUNetTrainerSparseSynthetic(SyntheticSamples, nnUNetTrainerSparse):
    """Sparse that also learns from synthetic samples, as CMEMS does, and has one network."""

    config = SPARSE_SYNTHETIC


class nnUNetTrainerMeanTeacherSynthetic(SyntheticSamples, nnUNetTrainerMeanTeacher):
    """The mean teacher that also learns from synthetic samples, as CMEMS does."""

    config = MEAN_TEACHER_SYNTHETIC


class nnUNetTrainerCMEMSNoImage(nnUNetTrainerCMEMS):
    """Without strong views: the networks teach each other by perturbed features alone."""

    config = with_changed(CMEMS, "mutual", image=None)


class nnUNetTrainerCMEMSNoFeature(nnUNetTrainerCMEMS):
    """Without perturbed features; for any architecture."""

    config = with_changed(CMEMS, "mutual", feature=None)


class nnUNetTrainerCMEMSNoSynthetic(nnUNetTrainerCMEMS):
    """Without synthetic samples: the labelled half of a batch is of labelled scans."""

    config = replace(CMEMS, synthetic=None)


class nnUNetTrainerGMABSPaper(nnUNetTrainerGMABS):
    """GM-ABS with the prompts, losses and weights of its released program."""

    config = GM_ABS_PAPER


class nnUNetTrainerGMABSNoGeneralist(nnUNetTrainerGMABS):
    """The teacher's own labels take the place of the generalist's."""

    config = replace(GM_ABS, generalist=None)


class nnUNetTrainerGMABSNoDenoise(nnUNetTrainerGMABS):
    """Pseudo labels are believed as they are."""

    config = with_changed(GM_ABS, "noise_tolerant", doubtful_as="pseudo")


class nnUNetTrainerGMABSNoClip(nnUNetTrainerGMABS):
    """Logits are not clipped."""

    config = with_changed(GM_ABS, "noise_tolerant", reachable_prob=None)


class nnUNetTrainerGMABSActive(AsksExpert, nnUNetTrainerGMABS):
    """GM-ABS whole: the model asks the generalist for labels, and an expert for planes."""

    config = GM_ABS_ACTIVE


class nnUNetTrainerGMABSActivePaper(AsksExpert, nnUNetTrainerGMABSPaper):
    """GM-ABS whole, as its released program intends it."""

    config = GM_ABS_ACTIVE_PAPER


class nnUNetTrainerGMABSMutual(MutualTeaching, nnUNetTrainerGMABS):
    """GM-ABS whose student has a peer: each also learns from the other's confident labels, as in CMEMS."""

    config = GM_ABS_MUTUAL


class nnUNetTrainerGMABSSynthetic(SyntheticSamples, nnUNetTrainerGMABS):
    """GM-ABS that also learns from synthetic samples, as CMEMS does."""

    config = GM_ABS_SYNTHETIC
