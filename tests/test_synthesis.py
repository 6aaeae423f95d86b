"""Objects of an exemplar: cut out, transformed, placed, pasted."""

from dataclasses import replace

import numpy as np
import pytest

from nnunet_gmabs.learning.objects import CutOut, convex_hull, cut_out_objects
from nnunet_gmabs.learning.synthesis import (
    ObjectTransform,
    draw_start,
    draw_transform,
    match_intensity,
    paste,
    rotation,
    transform_object,
    vary_intensity,
)

UNKNOWN = 3
SHAPE = (15, 16, 17)


def scan(dense=True):
    """Two objects, one of two classes that touch; dense or drawn on three planes."""
    labels = np.zeros(SHAPE, np.int16)
    labels[3:8, 4:10, 5:9] = 1
    labels[4:7, 5:9, 9:12] = 2
    labels[11:13, 12:14, 13:15] = 1
    image = (
        np.random.default_rng(0).normal(0, 1, (2, *SHAPE)).astype(np.float32) + 5 * (labels == 1) - 5 * (labels == 2)
    )
    if not dense:
        drawn = np.zeros(SHAPE, bool)
        drawn[5], drawn[:, 6], drawn[:, :, 7] = True, True, True
        labels = np.where(drawn, labels, UNKNOWN).astype(np.int16)
    return image.astype(np.float32), labels


def cut_all(dense=True, margin=4.0, spacing=(1, 1, 1)):
    return cut_out_objects(*scan(dense), UNKNOWN, margin, spacing)


def identity(channels=2):
    return ObjectTransform(np.eye(3), np.zeros((3, 4, 4, 4)), np.ones(channels), np.zeros(channels))


def inner(cut, labels=(1, 2)):
    return np.isin(cut.labels, labels) & (cut.alpha >= 0.999)


# ---- cutting out


def test_touching_classes_are_one_object_and_the_largest_comes_first():
    first, second = cut_all(margin=0)
    assert first.alpha.shape == (5, 6, 7) and set(np.unique(first.labels)) == {0, 1, 2}
    assert second.alpha.shape == (2, 2, 2)
    assert first.centre == pytest.approx((5 / 14, 6.5 / 15, 8 / 16))
    image, labels = scan()
    assert np.array_equal(first.image, image[:, 3:8, 4:10, 5:12])
    assert np.array_equal(first.labels, labels[3:8, 4:10, 5:12])


def test_alpha_is_1_to_half_the_margin_and_0_from_the_margin_on():
    labels = np.zeros((1, 1, 15), np.int16)
    labels[0, 0, 7] = 1
    (cut,) = cut_out_objects(np.zeros((1, 1, 1, 15), np.float32), labels, UNKNOWN, 4.0, (1, 1, 1))
    assert cut.alpha[0, 0].tolist() == [0, 0.5, 1, 1, 1, 1, 1, 0.5, 0]


def test_the_margin_is_a_length_not_a_number_of_voxels():
    labels = np.zeros((9, 1, 15), np.int16)
    labels[4, 0, 7] = 1
    (cut,) = cut_out_objects(np.zeros((1, 9, 1, 15), np.float32), labels, UNKNOWN, 4.0, (3, 1, 1))
    assert cut.alpha[:, 0, 4].tolist() == [0, 0.5, 1, 0.5, 0]  # 3 from the object is three quarters of the margin


def test_surroundings_bring_their_labels_along_and_unknown_ones_stay_unknown():
    for cut in cut_all():
        assert (cut.labels == 0).any() and not (cut.labels == UNKNOWN).any() and cut.dense
    sparse = cut_all(dense=False)[0]
    assert (sparse.labels == UNKNOWN).any() and not sparse.dense


def test_between_drawn_planes_the_image_comes_along_without_labels():
    cut = cut_all(dense=False, margin=0)[0]
    whole = cut_all(margin=0)[0]
    solid = cut.alpha == 1
    assert solid.sum() > 0.5 * whole.alpha.sum()
    assert 0.3 < (cut.labels[solid] == UNKNOWN).mean() < 0.8


def test_no_foreground_gives_no_object():
    image, labels = scan()
    assert cut_out_objects(image, np.zeros_like(labels), UNKNOWN, 2.0, (1, 1, 1)) == []
    assert cut_out_objects(image, np.full_like(labels, UNKNOWN), UNKNOWN, 2.0, (1, 1, 1)) == []


def test_without_unknown_label_all_is_drawn():
    image, labels = scan()
    labels[labels == 2] = UNKNOWN  # a class like any other
    assert set(np.unique(cut_out_objects(image, labels, None, 0.0, (1, 1, 1))[0].labels)) == {0, 1, 3}


def test_the_hull_of_three_planes_of_a_ball_is_between_octahedron_and_ball():
    z, y, x = np.indices((21, 21, 21)) - 10
    ball = z**2 + y**2 + x**2 <= 64
    planes = ball & ((z == 0) | (y == 0) | (x == 0))
    hull = convex_hull(planes, (1, 1, 1))
    assert hull[planes].all() and (abs(z) + abs(y) + abs(x) <= 8)[~hull].sum() == 0
    assert 0.75 * ball.sum() < hull.sum() < 1.1 * ball.sum()


ROWS, COLUMNS = np.indices((13, 15)) - 6
FLAT = {
    "one voxel": (ROWS == 0) & (COLUMNS == 0),
    "a line": ROWS == 0,
    "a triangle": (ROWS >= COLUMNS) & (COLUMNS >= -6),
}


@pytest.mark.parametrize("piece", FLAT)
def test_convex_pieces_in_one_plane_are_their_own_hull(piece):
    mask = np.zeros((5, 13, 15), bool)
    mask[2] = FLAT[piece]
    assert np.array_equal(convex_hull(mask, (1, 1, 1)), mask)
    assert np.array_equal(convex_hull(mask, (3, 1, 1)), mask)


def test_the_hull_of_a_disc_is_no_more_than_half_a_voxel_larger():
    mask = np.zeros((5, 13, 15), bool)
    mask[2] = ROWS**2 + COLUMNS**2 <= 25
    hull = convex_hull(mask, (1, 1, 1))
    assert hull[mask].all() and not hull[[0, 1, 3, 4]].any() and not hull[2][ROWS**2 + COLUMNS**2 > 5.5**2].any()


# ---- transforming


def test_the_identity_changes_nothing():
    cut = cut_all()[0]
    same = transform_object(cut, identity(), (1, 1, 1), UNKNOWN)
    box = tuple(slice(w.min(), w.max() + 1) for w in np.nonzero(cut.alpha))
    np.testing.assert_allclose(same.alpha, cut.alpha[box], atol=1e-6)
    assert np.array_equal(same.labels, cut.labels[box])
    np.testing.assert_allclose(same.image, cut.image[(slice(None), *box)], atol=1e-4)


def test_a_quarter_turn_across_axis_0_by_hand():
    labels = np.zeros((1, 5, 5), np.int16)
    labels[0, 2, 2:] = [1, 1, 2]
    cut = CutOut(np.zeros((1, 1, 5, 5), np.float32), labels, np.ones((1, 5, 5), np.float32), (0.5, 0.5, 0.5), True)
    turned = transform_object(cut, replace(identity(1), matrix=rotation((np.pi / 2, 0, 0))), (1, 1, 1), UNKNOWN)
    # the matrix says where a new offset was before: the new (0, -1, 0) is the old (0, 0, -1)
    column = turned.labels[:, :, turned.labels.shape[2] // 2]
    assert [row for row in column[column.shape[0] // 2].tolist() if row != UNKNOWN] == [0, 0, 1, 1, 2]


def test_turns_are_rigid_in_lengths_not_in_voxels():
    labels = np.zeros((3, 3, 9), np.int16)
    labels[1, 1, 2:7] = 1  # 2 x 1 x 5 long; turned, that is 2 or 3 voxels of 2, 1 of 1, and 2 or 3 of 1
    cut = CutOut(np.zeros((1, 3, 3, 9), np.float32), labels, np.ones((3, 3, 9), np.float32), (0.5, 0.5, 0.5), True)
    turned = transform_object(cut, replace(identity(1), matrix=rotation((0, np.pi / 2, 0))), (2, 1, 1), UNKNOWN)
    places = np.argwhere(turned.labels == 1)
    sides = (np.ptp(places, 0) + 1).tolist()
    assert sides[0] in (2, 3) and sides[1] == 1 and sides[2] in (2, 3)


def test_twice_the_size_is_eight_times_the_volume():
    cut = cut_all(margin=0)[0]
    large = transform_object(cut, replace(identity(), matrix=np.eye(3) / 2), (1, 1, 1), UNKNOWN)
    volumes = [np.isin(c.labels, (1, 2)).sum() for c in (large, cut)]
    assert volumes[0] / volumes[1] == pytest.approx(8, rel=0.1)


def test_gain_and_bias_are_per_channel_around_the_mean():
    cut = cut_all(margin=0)[1]
    changed = vary_intensity(cut, replace(identity(), gain=np.array([2, 1]), bias=np.array([0, 3])))
    mean = cut.image[0].mean()
    np.testing.assert_allclose(changed.image[0], 2 * (cut.image[0] - mean) + mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(changed.image[1], cut.image[1] + 3, rtol=1e-4, atol=1e-4)


def test_rotations_turn_without_stretching():
    matrix = rotation((0.3, -0.4, 0.5))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)
    np.testing.assert_allclose(rotation((0.3, 0, 0))[0], [1, 0, 0])


def test_draws_stay_within_their_limits_and_follow_from_the_generator():
    def draw(seed, **more):
        return draw_transform(np.random.default_rng(seed), (10, 20, 30), 2, 15, 1.2, 0.05, 0.1, **more)

    assert np.array_equal(draw(0).matrix, draw(0).matrix) and not np.array_equal(draw(0).matrix, draw(1).matrix)
    for seed in range(50):
        drawn = draw(seed)
        scale = np.linalg.det(drawn.matrix) ** (1 / 3)
        assert 1 / 1.2 <= scale <= 1.2
        assert np.trace(drawn.matrix / scale) >= 1 + 2 * np.cos(np.radians(3 * 15))  # three turns of at most 15 degrees
        assert (abs(np.log(drawn.gain)) <= 0.1).all() and (abs(drawn.bias) <= 0.1).all()
        flat = draw(seed, in_plane=True)
        assert flat.matrix[0].tolist() == [1, 0, 0] and flat.matrix[:, 0].tolist() == [1, 0, 0]
        assert not flat.displacement[0].any() and flat.displacement[1:].any()
    assert np.std([draw(seed).displacement for seed in range(50)]) == pytest.approx(0.05 * 10, rel=0.05)


def test_a_bent_object_stays_one_object_of_about_its_size():
    cut = cut_all()[0]
    for seed in range(5):
        drawn = draw_transform(np.random.default_rng(seed), cut.alpha.shape, 2, 15, 1.0, 0.05, 0.0)
        bent = transform_object(cut, drawn, (1, 1, 1), UNKNOWN)
        assert bent.alpha.max() <= 1 and not np.array_equal(bent.labels, cut.labels)
        assert inner(bent).sum() == pytest.approx(inner(cut).sum(), rel=0.3)


# ---- placing


def test_an_object_comes_back_to_its_place_in_its_own_scan():
    for cut, place in zip(cut_all(margin=0), [(3, 4, 5), (11, 12, 13)], strict=True):
        assert draw_start(np.random.default_rng(0), cut, SHAPE, 0.0, anywhere=False) == place


def test_a_place_is_relative_to_the_scan():
    cut = cut_all(margin=0)[1]  # middle at 11.5 / 14, 12.5 / 15, 13.5 / 16
    assert draw_start(np.random.default_rng(0), cut, (29, 31, 33), 0.0, anywhere=False) == (22, 24, 26)


@pytest.mark.parametrize("anywhere", [False, True])
def test_objects_stay_inside_the_scan(anywhere):
    cut, rng = cut_all()[0], np.random.default_rng(0)
    starts = np.array([draw_start(rng, cut, SHAPE, 1.0, anywhere) for _ in range(500)])
    room = np.array(SHAPE) - cut.alpha.shape
    assert (starts >= 0).all() and (starts <= room).all()
    assert (starts.min(0) == 0).all() and (starts.max(0) == room).all()


def test_an_object_longer_than_the_scan_is_centred():
    cut = cut_all(margin=0)[0]  # 5 x 6 x 7
    assert draw_start(np.random.default_rng(0), cut, (2, 16, 5), 0.0, anywhere=True)[::2] == (-2, -1)


# ---- pasting


@pytest.mark.parametrize("same_organ", [False, True])
def test_intensities_match_in_the_band_or_in_all_that_is_pasted(same_organ):
    cut = cut_all()[0]
    place = np.random.default_rng(1).normal(7, 1.5, cut.image.shape).astype(np.float32)
    region = (cut.alpha > 0) if same_organ else (cut.alpha > 0) & (cut.alpha < 0.999)
    matched = match_intensity(cut, place, same_organ)
    np.testing.assert_allclose(matched.image[:, region].mean(1), place[:, region].mean(1), rtol=1e-3)
    np.testing.assert_allclose(matched.image[:, region].std(1), place[:, region].std(1), rtol=1e-3)
    assert matched.image[0][cut.labels == 1].mean() > matched.image[0][cut.labels == 2].mean()


def test_contrast_is_at_most_doubled_and_a_constant_place_stays_finite():
    cut = cut_all()[0]
    place = np.random.default_rng(1).normal(0, 100, cut.image.shape).astype(np.float32)
    band = (cut.alpha > 0) & (cut.alpha < 0.999)
    np.testing.assert_allclose(
        match_intensity(cut, place, False).image[:, band].std(1), 2 * cut.image[:, band].std(1), rtol=1e-3
    )
    assert np.isfinite(
        match_intensity(replace(cut, image=np.zeros_like(cut.image)), np.zeros_like(place), False).image
    ).all()


def test_without_band_nothing_is_matched():
    cut = cut_all(margin=0)[0]
    assert match_intensity(cut, np.zeros_like(cut.image), False) is cut


def test_pasting_by_hand():
    cut = CutOut(
        np.full((1, 1, 1, 4), 10, np.float32),
        np.array([[[1, 2, UNKNOWN, 1]]], np.int16),
        np.array([[[1, 0.5, 1, 1]]], np.float32),
        (0.5, 0.5, 0.5),
        False,
    )
    image = np.full((1, 1, 1, 4), 2, np.float32)
    labels = np.array([[[UNKNOWN, UNKNOWN, UNKNOWN, 0]]], np.int16)
    pixels, drawn = paste(image, labels, cut, UNKNOWN)
    assert pixels.flatten().tolist() == [10, 6, 10, 2]
    assert drawn.flatten().tolist() == [1, UNKNOWN, UNKNOWN, 0]
    assert (image == 2).all() and labels.flatten().tolist() == [UNKNOWN] * 3 + [0]


def test_what_an_expert_drew_is_never_overwritten():
    rng = np.random.default_rng(0)
    cut = cut_all()[0]
    labels = rng.choice([0, 1, 2, UNKNOWN, UNKNOWN, UNKNOWN], cut.labels.shape).astype(np.int16)
    image = rng.normal(0, 1, cut.image.shape).astype(np.float32)
    pixels, drawn = paste(image, labels, cut, UNKNOWN)
    expert = labels != UNKNOWN
    assert np.array_equal(drawn[expert], labels[expert]) and np.array_equal(pixels[:, expert], image[:, expert])
    assert (drawn[~expert] != UNKNOWN).any() and (pixels[:, ~expert] != image[:, ~expert]).any()
