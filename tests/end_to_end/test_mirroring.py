"""Patches are not mirrored along an axis that tells the drawn classes apart, from the loader to the prediction.

In the data set of these tests class 2 always follows class 1 along axis 2, and nowhere else.
"""

import numpy as np
import pytest
import tiny
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tiny import SPARSE, Training

from nnunet_gmabs.data.expert import expert_labels
from nnunet_gmabs.trainers import loaders

pytestmark = pytest.mark.slow


@pytest.fixture
def mirrored(monkeypatch):
    """Axes along which nnU-Net's training pipeline has been told to mirror, one entry for each pipeline."""
    axes = []
    stock = nnUNetTrainer.get_training_transforms

    def pipeline(*args, **options):
        transforms = stock(*args, **options)
        found = [t.allowed_axes for t in transforms.transforms if isinstance(t, MirrorTransform)]
        axes.append(found[0] if found else None)
        return transforms

    monkeypatch.setattr(nnUNetTrainer, "get_training_transforms", staticmethod(pipeline))
    return axes


@pytest.mark.parametrize(
    ("setting", "configuration", "axes"),
    [
        ("anatomy", "3d_fullres", (0, 1)),
        ("nnunet", "3d_fullres", (0, 1, 2)),
        ("none", "3d_fullres", None),
        ("anatomy", "2d", (0,)),  # slices along axis 0: their second axis is axis 2
        ("nnunet", "2d", (0, 1)),
    ],
)
def test_training_and_prediction_mirror_along_the_same_axes(setting, configuration, axes, project, tmp_path, mirrored):
    training = Training(project, tmp_path, SPARSE, configuration, settings={"mirroring": setting})
    trainer = training.build()
    trainer.get_dataloaders()
    assert mirrored == [axes]
    assert trainer.inference_allowed_mirroring_axes == axes


def test_the_voxels_that_decide_are_those_an_expert_drew(project, tmp_path):
    trainer = Training(project, tmp_path, SPARSE).build()
    [places] = loaders.drawn_places(trainer, ["scan_00"])
    [labels] = expert_labels(project.pre / "nnUNetPlans_3d_fullres", ["scan_00"])
    assert set(places) == {1, 2}
    for label, voxels in places.items():
        assert {*map(tuple, voxels.tolist())} == {*map(tuple, np.argwhere(labels == label).tolist())}


def test_a_continued_training_mirrors_as_it_began_whatever_is_labelled_by_then(project, tmp_path, monkeypatch):
    training = Training(project, tmp_path, SPARSE)
    with monkeypatch.context() as patch:
        patch.setattr(loaders, "drawn_places", lambda *_: [{1: np.zeros((1, 3)), 2: np.array([[9, 0, 0]])}])
        training.here()
    assert tiny.load(training.final)["inference_allowed_mirroring_axes"] == (1, 2)
    longer = Training(project, tmp_path, SPARSE, settings={"num_epochs": 5})
    longer.here(continue_training=True)
    assert tiny.load(training.final)["inference_allowed_mirroring_axes"] == (1, 2)
    assert tiny.load(training.final)["gmabs"]["iteration"] == 15
