"""Planes to ask for: through the region, never a drawn one, never through nothing while there is something."""

import numpy as np
import pytest

from nnunet_gmabs.active.planes import body_mask, choose_planes

SHAPE = (9, 12, 15)


def rng(seed=0):
    return np.random.default_rng(seed)


def box():
    """Foreground on planes 2..6, 3..8 and 5..12."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:7, 3:9, 5:13] = 2
    return labels


def planes(chosen):
    return [p.plane for p in chosen]


def test_the_middle_of_the_predicted_region_on_each_axis():
    chosen = choose_planes(box(), 3, rng())
    assert planes(chosen) == [(0, 4), (1, 5), (2, 8)]
    assert [p.score for p in chosen] == [6 * 8, 5 * 8, 5 * 6]
    assert chosen[0].reason == "middle of the predicted region on axis 0"


def test_a_drawn_plane_is_avoided_by_halving_what_it_leaves():
    chosen = choose_planes(box(), 3, rng(), drawn=[(0, 4), (2, 11)])
    # axis 0: 2..3 or 5..6, the lower; axis 2: 5..10 is longer than 12..12
    assert planes(chosen) == [(0, 2), (1, 5), (2, 7)]
    assert "undrawn planes 5 to 10" in chosen[2].reason


@pytest.mark.parametrize(
    ("number", "counts"), [(1, [0, 1, 0]), (2, [0, 1, 1]), (3, [1, 1, 1]), (4, [1, 2, 1]), (6, [2, 2, 2])]
)
def test_axes_take_turns_beginning_with_the_largest_spacing(number, counts):
    chosen = planes(choose_planes(box(), number, rng(), spacing_mm=(1.0, 3.0, 2.0)))
    assert [sum(axis == a for axis, _ in chosen) for a in range(3)] == counts
    assert len(set(chosen)) == number


@pytest.mark.parametrize("how", ["middle", "information", "random"])
@pytest.mark.parametrize("seed", range(5))
def test_planes_cross_the_region_and_are_never_drawn_ones(how, seed):
    drawn = {(0, 3), (0, 4), (1, 5), (2, 8)}
    labels = box()
    chosen = planes(choose_planes(labels, 9, rng(seed), drawn, how, rng(seed).random(SHAPE)))
    assert len(set(chosen)) == 9 and not set(chosen) & drawn
    assert all(np.take(labels, index, axis).any() for axis, index in chosen)


def test_a_plane_between_two_regions_is_not_chosen():
    labels = np.zeros(SHAPE, int)
    labels[0:2, 4, 5] = labels[7:9, 4, 5] = 1  # the middle, 4, crosses nothing
    assert planes(choose_planes(labels, 3, rng())) == [(0, 1), (1, 4), (2, 5)]


def test_when_the_region_is_used_up_the_body_and_then_the_scan_follow():
    labels = np.zeros(SHAPE, int)
    labels[4, 5, 6] = 1
    body = np.zeros(SHAPE, bool)
    body[3:6, 5, 6] = True
    chosen = choose_planes(labels, 6, rng(), body=body)
    assert planes(chosen) == [(0, 4), (1, 5), (2, 6), (0, 3), (0, 5), (0, 1)]
    assert chosen[3].reason == "middle of the undrawn planes 3 to 3 of the body on axis 0"
    assert chosen[5].reason == "middle of the undrawn planes 0 to 2 of the scan on axis 0"


def test_nothing_predicted_gives_the_middle_of_the_scan():
    chosen = choose_planes(np.zeros(SHAPE, int), 3, rng())
    assert planes(chosen) == [(0, 4), (1, 5), (2, 7)]
    assert chosen[0].reason == "middle of the scan on axis 0"


def test_a_scan_that_is_drawn_everywhere_gives_no_more_planes():
    everything = [(axis, index) for axis in range(3) for index in range(SHAPE[axis])]
    assert choose_planes(box(), 3, rng(), everything) == []
    on_axis_1 = [plane for plane in everything if plane[0] == 1]
    assert choose_planes(box(), 3, rng(), on_axis_1) == [], "they hold the whole scan"
    # with the last plane of axis 1 the whole scan is drawn, and nothing is left on axis 2
    but_one = [plane for plane in on_axis_1 if plane != (1, 5)]
    assert planes(choose_planes(box(), 3, rng(), but_one)) == [(0, 4), (1, 5)]


@pytest.mark.parametrize("how", ["middle", "information", "random"])
@pytest.mark.parametrize("flat", [0, 1, 2])
@pytest.mark.parametrize("number", [1, 3, 4])
def test_an_image_of_one_slice_has_one_plane(how, flat, number):
    shape = tuple(1 if axis == flat else n for axis, n in enumerate(SHAPE))
    labels = box().take([4], flat)
    assert labels.shape == shape
    chosen = choose_planes(
        labels, number, rng(), [((flat + 1) % 3, 5)], how, np.ones(shape), spacing_mm=(1.0, 3.0, 2.0)
    )
    assert planes(chosen) == [(flat, 0)]
    assert choose_planes(labels, number, rng(), [(flat, 0)], how, np.ones(shape)) == []


def test_two_slices_are_asked_for_no_more_than_once():
    labels = np.ones((2, 12, 15), int)
    assert planes(choose_planes(labels, 9, rng())) == [(0, 0), (1, 5), (2, 7), (0, 1)]


def test_most_information_and_then_away_from_it():
    information = np.zeros(SHAPE)
    information[3] = 1.0
    information[4] = 0.9
    information[6] = 0.5
    information[8] = 99.0  # crosses nothing predicted
    chosen = choose_planes(box(), 6, rng(), how="information", information=information)
    on_axis_0 = [p for p in chosen if p.axis == 0]
    # the region is 5 planes long, reach 1.25: 4 keeps 0.9 * 0.8 = 0.72 > 0.5
    assert [p.index_orig for p in on_axis_0] == [3, 4]
    assert on_axis_0[0].score == pytest.approx(12 * 15)
    assert on_axis_0[1].score == pytest.approx(0.72 * 12 * 15)
    assert on_axis_0[0].reason == "most expected information in the predicted region on axis 0"


def test_random_planes_reach_every_plane_of_the_region_and_follow_the_seed():
    found = [choose_planes(box(), 3, rng(seed), how="random") for seed in range(200)]
    assert {p.index_orig for chosen in found for p in chosen if p.axis == 0} == set(range(2, 7))
    assert choose_planes(box(), 3, rng(7), how="random") == found[7]
    assert found[0][0].score is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"how": "oracle"}, "how='oracle'"),
        ({"how": "information"}, "needs information of shape"),
        ({"number": 0}, "0 planes asked for"),
    ],
)
def test_what_cannot_be_done_is_said(changes, message):
    with pytest.raises(ValueError, match=message):
        choose_planes(**{"labels_pred": box(), "number": 3, "rng": rng()} | changes)


def test_the_body_is_the_bright_part():
    image = rng().normal(0, 1, SHAPE)
    image[2:7, 3:9, 5:13] += 50
    assert np.array_equal(body_mask(image), box() > 0)
    assert body_mask(np.ones(SHAPE)).all()
