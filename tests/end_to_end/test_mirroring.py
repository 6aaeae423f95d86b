"""Training and prediction mirror along the same axes: along none, or along nnU-Net's."""

import pytest
import tiny
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tiny import SPARSE, Training

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
    ("settings", "configuration", "axes"),
    [({}, "3d_fullres", None), ({"mirroring": True}, "3d_fullres", (0, 1, 2)), ({"mirroring": True}, "2d", (0, 1))],
)
def test_training_and_prediction_mirror_alike(settings, configuration, axes, project, tmp_path, mirrored):
    training = Training(project, tmp_path, SPARSE, configuration, settings=settings)
    training.here()
    assert mirrored == [axes]
    assert tiny.load(training.final)["inference_allowed_mirroring_axes"] == axes
