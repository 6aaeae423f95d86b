"""Ablations and presets: trainers that differ from another in their settings alone."""

from dataclasses import replace

from nnunet_gmabs.config import MEAN_TEACHER_PAPER, SPARSE, StreamsConfig
from nnunet_gmabs.trainers.base import nnUNetTrainerSparse
from nnunet_gmabs.trainers.mean_teacher import nnUNetTrainerMeanTeacher


class nnUNetTrainerSparseHalfBatch(nnUNetTrainerSparse):
    """Sees as many labelled samples as MeanTeacher, and nothing else."""

    config = replace(SPARSE, streams=StreamsConfig(labelled_share=1.0, batch_share=0.5))


class nnUNetTrainerMeanTeacherPaper(nnUNetTrainerMeanTeacher):
    """GM-ABS's supervision and consistency with the weights of its released program."""

    config = MEAN_TEACHER_PAPER
