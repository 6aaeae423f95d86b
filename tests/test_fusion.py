"""Votes of views become one label map."""

import numpy as np
import pytest

from nnunet_gmabs.generalist.fusion import (
    fuse_counts,
    fuse_views,
    keep_expert_labels,
    needed_votes,
    view_agreement,
    where_both_agree,
)

SHAPE = (5, 6, 7)


def one_voxel(counts, probs, strategy="majority", views=3):
    """The label of one voxel whose class k has counts[k] of the votes."""
    votes = np.array([[n > view for n in counts] for view in range(views)])
    return int(fuse_views(votes[..., None, None, None], np.array(probs)[:, None, None, None], strategy)[0, 0, 0])


def reference_fuse(votes, probs, strategy):
    views, classes = votes.shape[:2]
    fused = np.zeros(votes.shape[2:], dtype=int)
    for voxel in np.ndindex(*fused.shape):
        claims = []
        for k in range(classes):
            n = sum(bool(votes[(view, k, *voxel)]) for view in range(views))
            if (n > views / 2) if strategy == "majority" else n == views:
                claims.append((-n, -probs[(k, *voxel)], k))
        fused[voxel] = min(claims)[2] + 1 if claims else 0
    return fused


@pytest.mark.parametrize(
    ("counts", "probs", "majority", "unanimous"),
    [
        ([0], [0.9], 0, 0),
        ([1], [0.9], 0, 0),
        ([2], [0.1], 1, 0),
        ([3], [0.0], 1, 1),
        ([1, 2], [0.9, 0.1], 2, 0),
        ([2, 3], [0.9, 0.1], 2, 2),
        ([3, 2], [0.1, 0.9], 1, 1),
        ([2, 2], [0.4, 0.6], 2, 0),
        ([2, 2], [0.6, 0.4], 1, 0),
        ([3, 3, 3], [0.2, 0.4, 0.4], 2, 2),
        ([2, 2, 1], [0.3, 0.3, 0.4], 1, 0),
    ],
)
def test_one_voxel_by_hand(counts, probs, majority, unanimous):
    assert one_voxel(counts, probs) == majority
    assert one_voxel(counts, probs, "unanimous") == unanimous


def test_other_numbers_of_views():
    assert [needed_votes(v, "majority") for v in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]
    assert [needed_votes(v, "unanimous") for v in (1, 2, 3)] == [1, 2, 3]
    assert one_voxel([0, 1], [0.9, 0.1], views=1) == 2
    assert one_voxel([1], [0.9], views=2) == 0


@pytest.mark.parametrize("strategy", ["majority", "unanimous"])
@pytest.mark.parametrize(("views", "classes"), [(3, 1), (3, 4), (2, 3), (1, 2)])
def test_fusion_against_a_slow_reference(views, classes, strategy):
    rng = np.random.default_rng(views * 10 + classes)
    votes = rng.random((views, classes, *SHAPE)) < 0.6
    probs = rng.integers(0, 4, (classes, *SHAPE)).astype(np.float32) / 4  # with ties
    fused = fuse_views(votes, probs, strategy)
    assert fused.dtype == np.int16
    assert np.array_equal(fused, reference_fuse(votes, probs, strategy))
    assert np.array_equal(fused, fuse_counts(votes.sum(0), probs, views, strategy))


def test_what_does_not_fit_is_refused():
    votes, probs = np.ones((3, 2, *SHAPE), bool), np.ones((2, *SHAPE))
    with pytest.raises(ValueError, match="strategy"):
        fuse_views(votes, probs, "most")
    with pytest.raises(ValueError, match="votes"):
        fuse_views(votes, probs[:1])
    with pytest.raises(ValueError, match="no view"):
        fuse_views(votes[:0], probs)


def test_agreement_of_views_by_hand():
    counts = np.array([[3, 2, 1, 0], [0, 0, 0, 0], [3, 3, 0, 0]]).reshape(3, 1, 2, 2)
    agreement = view_agreement(counts, 3)
    assert agreement[0] == pytest.approx(1 / 3) and np.isnan(agreement[1]) and agreement[2] == 1


def test_an_experts_label_stays_background_too():
    fused = np.array([[[1, 1, 0, 2]]], dtype=np.int16)
    expert = np.array([[[0, 9, 2, 9]]])
    assert keep_expert_labels(fused, expert, 9).tolist() == [[[0, 1, 2, 2]]]
    assert keep_expert_labels(fused, np.zeros_like(expert), None).tolist() == [[[0, 0, 0, 0]]]
    assert keep_expert_labels(fused, expert, 9).dtype == np.int16
    assert fused.tolist() == [[[1, 1, 0, 2]]]


def test_where_both_agree_by_hand():
    generalist, specialist = np.array([0, 1, 2, 0, 1]), np.array([0, 1, 1, 2, 0])
    assert where_both_agree(generalist, specialist, 9).tolist() == [0, 1, 9, 9, 9]
