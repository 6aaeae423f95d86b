"""The trainers that `nnUNetv2_train -tr NAME` can name; the one module that nnU-Net scans.

nnU-Net imports this file as a top-level module, asks it for an attribute with the wanted name, and
forgets the module again. The classes live in nnunet_gmabs.trainers, so data workers and pickles find
them there. Nothing is caught here: when an import fails, its own cause is what the user must see.
"""

from nnunet_gmabs.trainers.base import nnUNetTrainerSparse
from nnunet_gmabs.trainers.gmabs import nnUNetTrainerGMABS
from nnunet_gmabs.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_gmabs.trainers.mutual import nnUNetTrainerCMEMS
from nnunet_gmabs.trainers.variants import (
    nnUNetTrainerCMEMSNoFeature,
    nnUNetTrainerCMEMSNoImage,
    nnUNetTrainerCMEMSNoSynthetic,
    nnUNetTrainerGMABSActive,
    nnUNetTrainerGMABSActivePaper,
    nnUNetTrainerGMABSMutual,
    nnUNetTrainerGMABSNoClip,
    nnUNetTrainerGMABSNoDenoise,
    nnUNetTrainerGMABSNoGeneralist,
    nnUNetTrainerGMABSPaper,
    nnUNetTrainerGMABSSynthetic,
    nnUNetTrainerMeanTeacherPaper,
    nnUNetTrainerMeanTeacherSynthetic,
    nnUNetTrainerSparseHalfBatch,
    nnUNetTrainerSparseSynthetic,
)

__all__ = [
    "nnUNetTrainerCMEMS",
    "nnUNetTrainerCMEMSNoFeature",
    "nnUNetTrainerCMEMSNoImage",
    "nnUNetTrainerCMEMSNoSynthetic",
    "nnUNetTrainerGMABS",
    "nnUNetTrainerGMABSActive",
    "nnUNetTrainerGMABSActivePaper",
    "nnUNetTrainerGMABSMutual",
    "nnUNetTrainerGMABSNoClip",
    "nnUNetTrainerGMABSNoDenoise",
    "nnUNetTrainerGMABSNoGeneralist",
    "nnUNetTrainerGMABSPaper",
    "nnUNetTrainerGMABSSynthetic",
    "nnUNetTrainerMeanTeacher",
    "nnUNetTrainerMeanTeacherPaper",
    "nnUNetTrainerMeanTeacherSynthetic",
    "nnUNetTrainerSparse",
    "nnUNetTrainerSparseHalfBatch",
    "nnUNetTrainerSparseSynthetic",
]
