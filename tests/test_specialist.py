"""What the network says about a scan: equal to the whole scan at once, whatever the windows."""

import numpy as np
import pytest
import torch
from relabel_tools import CPU, IGNORE, PATCH, Rounding, scene
from test_inference import Pointwise

from nnunet_gmabs.generalist.prototypes import PrototypeSums, class_prototypes, cosine_similarity
from nnunet_gmabs.generalist.specialist import add_to_sums, specialist_of
from nnunet_gmabs.inference import SlidingWindows


@pytest.fixture
def image():
    return torch.randn(2, 7, 6, 9, generator=torch.Generator().manual_seed(1))


def test_windows_give_what_the_whole_scan_gives(image):
    torch.manual_seed(2)
    network = Pointwise().eval()
    specialist = specialist_of(SlidingWindows(image, network, PATCH, CPU))
    with torch.no_grad():
        features = network.first(image[None])[0]
        probs = torch.softmax(network.decoder.seg_layers[1](features[None])[0], 0)
    similarity = cosine_similarity(features, class_prototypes(features, probs))
    torch.testing.assert_close(torch.from_numpy(specialist.probs), probs)
    np.testing.assert_array_equal(specialist.labels, similarity.argmax(0))
    two = similarity.topk(2, 0).values
    for axis in range(3):
        index = image.shape[axis + 1] - 2
        margin = torch.from_numpy(specialist.margin(axis, index))
        best, other = (value.select(axis, index) for value in two)
        torch.testing.assert_close(margin.amax(0), best - other, atol=1e-5, rtol=1e-3)
        assert (margin.argmax(0) == similarity.argmax(0).select(axis, index)).all()


def test_features_kept_or_computed_again_give_the_same_bits(image):
    network = Pointwise().eval()
    kept, again = (
        specialist_of(SlidingWindows(image, network, PATCH, CPU, features_bytes=size)) for size in (1 << 20, 0)
    )
    for name in ("probs", "labels", "similarity", "present"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(again, name))


def test_the_specialist_sees_what_is_there():
    image = torch.from_numpy(scene())
    specialist = specialist_of(SlidingWindows(image, Rounding(), PATCH, CPU))
    np.testing.assert_array_equal(specialist.labels, scene()[0])
    np.testing.assert_array_equal(specialist.probs.argmax(0), scene()[0])


def test_a_class_that_is_nowhere_has_no_prototype_and_no_voxel():
    image = torch.from_numpy(scene(classes=1))
    specialist = specialist_of(SlidingWindows(image, Rounding(), PATCH, CPU))
    np.testing.assert_array_equal(specialist.labels, scene(classes=1)[0])
    assert specialist.present.tolist() == [True, True, False]
    assert all(np.isfinite(specialist.margin(axis, 2)).all() for axis in range(3))


def test_prototypes_from_elsewhere_are_used():
    image = torch.from_numpy(scene())
    swapped = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    specialist = specialist_of(SlidingWindows(image, Rounding(), PATCH, CPU), swapped)
    np.testing.assert_array_equal(specialist.labels, np.array([0, 2, 1])[scene()[0].astype(int)])
    np.testing.assert_array_equal(specialist.probs.argmax(0), scene()[0])


def test_voxels_that_nobody_drew_are_in_no_prototype():
    image = torch.zeros(1, 4, 4, 4)
    image[0, 0], image[0, 1] = 1, 2
    labels = torch.full((4, 4, 4), IGNORE)
    labels[0, 0, 0], labels[1, 0, 0], labels[1, 0, 1] = 1, 1, 2  # one voxel that looks like 2 is drawn as 1
    sums = PrototypeSums(3)
    add_to_sums(sums, SlidingWindows(image, Rounding(), PATCH, CPU), None, labels)
    one, two = torch.tensor([0.2, 1.2, 0.2]), torch.tensor([0.0, 0.2, 1.2])
    torch.testing.assert_close(sums.prototypes(), torch.stack([torch.zeros(3), (one + two) / 2, two]))
