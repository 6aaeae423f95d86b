"""The figures of a round, by hand."""

from math import isnan, nan

import numpy as np

from nnunet_gmabs.generalist.figures import (
    ScanFigures,
    dice_of_counts,
    mean_dice,
    one_hot,
    overlap_counts,
    summary,
)


def test_overlap_counts_drawn_voxels_only():
    truth = np.array([[[0, 1, 1, 2]]])
    masks = np.array([[[[1, 1, 0, 1]]], [[[0, 1, 0, 1]]]], bool)
    assert overlap_counts(masks, truth, np.ones(truth.shape, bool)) == [[1, 2, 1], [1, 1, 0]]
    assert overlap_counts(masks, truth, np.array([[[False, True, True, False]]])) == [[1, 0, 1], [0, 1, 0]]


def test_one_hot():
    np.testing.assert_array_equal(one_hot(np.array([[[0, 2, 1]]]), 2), [[[[False, False, True]]], [[[0, 1, 0]]]])


def test_dice_is_of_counts_summed_over_scans():
    one, other = [[1, 2, 1], [0, 0, 0]], [[3, 0, 2], [0, 0, 0]]
    dice = dice_of_counts([one, other])  # class 1: 8 / (8 + 2 + 3); class 2 is nowhere
    assert dice[0] == 8 / 13 and isnan(dice[1])
    assert mean_dice([one, other]) == 8 / 13
    assert dice_of_counts([]) == [] and isnan(mean_dice([]))


def figures(**changes):
    values = {
        "slices": 4,
        "encoded": 3,
        "masks": 5,
        "quality": 0.8,
        "views_agree": 0.5,
        "teacher_agrees": 0.6,
        "changed": nan,
    }
    return ScanFigures(**(values | changes))


def test_summary_of_a_round():
    labelled = figures(
        changed=0.1, expert_views={"0": [[1, 0, 0]], "2": [[1, 1, 1]]}, expert_fused=[[2, 1, 0]], quality=nan
    )
    also = figures(expert_views={"0": [[0, 2, 0]]}, expert_fused=[[0, 0, 1]], slices=1)
    result = summary([labelled, also, figures(masks=0, quality=0.4, changed=0.3)])
    assert {name: round(value, 12) for name, value in result.items()} == {
        "scans": 3,
        "slices": 9,
        "encoded": 9,
        "masks": 10,
        "quality": 0.6,
        "views_agree": 0.5,
        "teacher_agrees": 0.6,
        "changed": 0.2,
        "expert_dice/view_0": 0.5,
        "expert_dice/view_2": 0.5,
        "expert_dice/class_1": round(2 / 3, 12),
    }


def test_a_round_without_scans_has_no_means():
    result = summary([])
    assert result["scans"] == result["slices"] == 0 and isnan(result["quality"])
