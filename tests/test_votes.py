"""The generalist's masks of one scan: asked only where the specialist sees something, answers on the right axis."""

import numpy as np
import pytest
from relabel_tools import SHAPE, BoxGeneralist, EllipseGeneralist, boxes, scene

from nnunet_gmabs.generalist import votes as module
from nnunet_gmabs.generalist.images import ScanImages
from nnunet_gmabs.generalist.specialist import Specialist
from nnunet_gmabs.generalist.votes import questions, view_votes

AXES = pytest.mark.parametrize("axis", [0, 1, 2])


def specialist_of(labels, classes=3):
    one_hot = (labels == np.arange(classes)[:, None, None, None]).astype(np.float32)
    return Specialist(one_hot, one_hot, np.ones(classes, bool), labels)


def vote(generalist, labels, axis, **more):
    rng = np.random.default_rng(0)
    images = ScanImages(labels[None], (1.0,) * 3)
    options = {"max_outward": 0.0, "encode": own_encoder(generalist, images)} | more
    return view_votes(generalist, images, specialist_of(labels), axis, rng, **options)


def own_encoder(generalist, images):
    return lambda axis, indices: (generalist.encode_many([images.slice(axis, i) for i in indices]), len(indices))


@pytest.fixture
def labels():
    return scene()[0].astype(int)


@AXES
def test_each_slice_and_class_that_the_specialist_sees_is_asked_about_and_nothing_else(labels, axis):
    asked = [(q.index, q.label) for q in questions(specialist_of(labels), axis, np.random.default_rng(0), 0.0)]
    expected = [
        (index, label)
        for index in range(SHAPE[axis])
        for label in (1, 2)
        if (np.take(labels, index, axis) == label).any()
    ]
    assert asked == expected


@AXES
def test_masks_land_where_they_were_asked_for(labels, axis):
    votes = vote(BoxGeneralist(), labels, axis)
    for label in (1, 2):
        np.testing.assert_array_equal(votes.masks[label - 1], boxes(labels, label, axis))


@AXES
def test_no_prompt_no_mask_and_no_slice_encoded(labels, axis):
    generalist = BoxGeneralist()
    votes = vote(generalist, labels, axis)
    with_prompt = np.flatnonzero((labels > 0).any(axis=tuple({0, 1, 2} - {axis})))
    assert votes.slices == votes.encoded == generalist.encoded == len(with_prompt)
    assert len(votes.qualities) == generalist.asked
    without = np.delete(np.moveaxis(votes.masks, axis + 1, 0), with_prompt, 0)
    assert not without.any()


def test_nothing_seen_nothing_asked():
    generalist = BoxGeneralist()
    votes = vote(generalist, np.zeros(SHAPE, int), 1)
    assert votes.masks.shape == (2, *SHAPE) and not votes.masks.any()
    assert (votes.slices, votes.qualities, votes.examples, generalist.asked) == (0, [], [], 0)


def test_masks_of_low_quality_do_not_vote_but_are_counted(labels):
    votes = vote(BoxGeneralist(quality=0.5), labels, 0, min_quality=0.6)
    assert not votes.masks.any() and set(votes.qualities) == {0.5}
    assert vote(BoxGeneralist(quality=0.75), labels, 0, min_quality=0.75).masks.any()


@AXES
def test_how_many_slices_are_asked_at_once_does_not_matter(labels, axis, monkeypatch):
    at_once = vote(EllipseGeneralist(), labels, axis)
    monkeypatch.setattr(module, "SLICES_AT_ONCE", 2)
    np.testing.assert_array_equal(vote(EllipseGeneralist(), labels, axis).masks, at_once.masks)


def test_slices_of_elongated_pixels_are_shown_square_and_masks_come_back(labels):
    shown = []

    class Watching(BoxGeneralist):
        def encode_many(self, slices):
            shown.extend(s.shape for s in slices)
            return list(slices)

    images = ScanImages(labels[None], (3.0, 1.0, 1.0))
    encode, rng = own_encoder(Watching(), images), np.random.default_rng(0)
    votes = view_votes(Watching(), images, specialist_of(labels), 1, rng, encode, 0.0)
    assert set(shown) == {(15, 7, 3)}
    np.testing.assert_array_equal(votes.masks[1], boxes(labels, 2, 1))


def test_embeddings_may_come_from_elsewhere(labels):
    calls = []

    def encode(axis, indices):
        calls.append((axis, indices))
        return [np.zeros((*np.take(labels, 0, axis).shape, 3), np.uint8) for _ in indices], 4

    generalist = BoxGeneralist()
    votes = vote(generalist, labels, 2, encode=encode)
    assert calls == [(2, [1, 2, 3, 4, 5, 6])] and generalist.encoded == 0
    assert (votes.slices, votes.encoded) == (6, 4)
    np.testing.assert_array_equal(votes.masks[0], boxes(labels, 1, 2))


def test_a_few_examples_show_what_was_asked(labels):
    votes = vote(BoxGeneralist(), labels, 2, name="scan_07")
    assert 1 <= len(votes.examples) <= module.EXAMPLES
    for example in votes.examples:
        assert example.title.startswith("scan_07, axis 2, slice ")
        assert example.slice_2d.shape == (5, 6, 3) and example.mask.shape == (5, 6)
        x0, y0, x1, y1 = example.prompt.box_xyxy.astype(int)
        assert example.mask[y0 : y1 + 1, x0 : x1 + 1].all() and example.mask.sum() == (x1 - x0 + 1) * (y1 - y0 + 1)
