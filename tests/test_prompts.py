"""Boxes and points around a region."""

import numpy as np
import pytest

from nnunet_gmabs.generalist.prompts import Prompt, prompt_from_region, tight_box, widened_box

SHAPE = (6, 7)  # rows y, columns x


def region_of(*pixels_yx, shape=SHAPE):
    region = np.zeros(shape, dtype=bool)
    for pixel in pixels_yx:
        region[pixel] = True
    return region


def ask(region, similarity=None, seed=0, **options):
    similarity = np.zeros(region.shape) if similarity is None else similarity
    return prompt_from_region(region, similarity, np.random.default_rng(seed), **options)


def reference_points(region, similarity, number):
    """Sorted one by one, distances by brute force."""
    rows, columns = region.shape
    pixels = [(y, x) for y in range(rows) for x in range(columns)]
    around = [(y, x) for y in range(-1, rows + 1) for x in range(-1, columns + 1)]

    def distance(pixel, others):
        return min((np.hypot(pixel[0] - y, pixel[1] - x) for y, x in others), default=0)

    inside, outside = [p for p in pixels if region[p]], [p for p in pixels if not region[p]]
    beyond = [p for p in around if p not in inside]
    best = sorted(inside, key=lambda p: (-similarity[p], -round(distance(p, beyond), 9), p))[:number]
    worst = sorted(outside, key=lambda p: (similarity[p], -round(distance(p, inside), 9), p))[:1]
    return [(x, y) for y, x in best], [(x, y) for y, x in worst]


def test_an_empty_region_asks_nothing():
    assert ask(region_of()) is None


def test_one_pixel_gives_a_box_of_one_pixel_and_no_points():
    prompt = ask(region_of((4, 2)))
    assert isinstance(prompt, Prompt)
    assert prompt.box_xyxy.tolist() == [2, 4, 2, 4]
    assert prompt.points_xy.shape == (0, 2) and prompt.point_labels.shape == (0,)
    assert prompt.prior is None


def test_five_pixels_give_a_box_and_no_points():
    prompt = ask(region_of((1, 2), (1, 3), (2, 2), (2, 3), (3, 5)))
    assert prompt.box_xyxy.tolist() == [2, 1, 5, 3]
    assert prompt.points_xy.shape == (0, 2)


def test_six_pixels_give_the_five_most_alike_and_the_least_alike_outside():
    region = region_of((1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3))
    similarity = np.zeros(SHAPE)
    similarity[1, 1:4], similarity[2, 1:4] = [0.4, 0.6, 0.1], [0.5, 0.2, 0.3]
    similarity[5, 4], similarity[0, 6] = -0.7, -0.6
    prompt = ask(region, similarity)
    assert prompt.points_xy.tolist() == [[2, 1], [1, 2], [1, 1], [3, 2], [2, 2], [4, 5]]
    assert prompt.point_labels.tolist() == [1, 1, 1, 1, 1, 0]


def test_the_negative_point_is_outside_even_where_the_least_alike_pixel_is_inside():
    region = np.zeros(SHAPE, dtype=bool)
    region[1:4, 1:5] = True
    similarity = np.ones(SHAPE)
    similarity[2, 2], similarity[5, 0] = -9, 0.5
    assert ask(region, similarity).points_xy[-1].tolist() == [0, 5]


def test_constant_similarity_takes_what_is_deepest_inside_and_farthest_outside():
    region = np.zeros((9, 12), dtype=bool)
    region[1:6, 1:6] = True
    prompt = ask(region)
    # the middle has depth 3, its ring depth 2: in row-major order
    assert prompt.points_xy.tolist() == [[3, 3], [2, 2], [3, 2], [4, 2], [2, 3], [11, 8]]


def test_a_region_that_fills_the_slice_has_no_negative_point_and_its_middle_is_deepest():
    prompt = ask(np.ones(SHAPE, dtype=bool))
    assert prompt.box_xyxy.tolist() == [0, 0, 6, 5]
    assert prompt.point_labels.tolist() == [1] * 5
    assert prompt.points_xy[:2].tolist() == [[2, 2], [3, 2]]


def test_infinite_similarity_is_no_problem_and_nan_is_named():
    region = np.zeros(SHAPE, dtype=bool)
    region[1:4, 1:5] = True
    assert ask(region, np.full(SHAPE, np.inf)).points_xy.shape == (6, 2)
    with pytest.raises(ValueError, match="NaN"):
        ask(region, np.full(SHAPE, np.nan))


@pytest.mark.parametrize("levels", [2, 1000])
@pytest.mark.parametrize("seed", range(8))
def test_points_against_a_slow_reference(seed, levels):
    rng = np.random.default_rng(seed)
    region = rng.random(SHAPE) < rng.choice([0.2, 0.5, 0.9])
    similarity = rng.integers(0, levels, SHAPE) / levels
    if region.sum() <= 5:
        region[2:5, 1:6] = True
    positive, negative = reference_points(region, similarity, 5)
    prompt = ask(region, similarity)
    assert [tuple(p) for p in prompt.points_xy] == positive + negative


def test_a_side_moves_by_0_to_the_rounded_share_of_its_extent():
    box = np.array([10.0, 20.0, 19.0, 59.0])  # 10 wide, 40 high
    shape = (100, 100)
    low, high = np.zeros(4), np.full(4, 1 - 1e-9)
    assert widened_box(box, shape, low, 0.1).tolist() == box.tolist()
    assert widened_box(box, shape, high, 0.1).tolist() == [9, 16, 20, 63]
    assert widened_box(box, shape, np.array([0.6, 0.3, 0.4, 0.7]), 0.1).tolist() == [9, 19, 19, 62]


def test_the_box_stays_in_the_slice():
    region = np.zeros((60, 50), dtype=bool)
    region[1:59, 1:49] = True
    widest = widened_box(tight_box(region), region.shape, np.full(4, 0.999), 0.1)
    assert widest.tolist() == [0, 0, 49, 59]


def test_boxes_are_drawn_over_the_whole_range_and_again_the_same_from_the_same_seed():
    region = np.zeros((60, 70), dtype=bool)
    region[20:40, 10:40] = True  # 30 wide: 0 to 3; 20 high: 0 to 2
    boxes = np.array([ask(region, seed=seed).box_xyxy for seed in range(300)])
    assert [sorted(set(side)) for side in boxes.T.tolist()] == [
        [7, 8, 9, 10],
        [18, 19, 20],
        [39, 40, 41, 42],
        [39, 40, 41],
    ]
    assert ask(region, seed=7).box_xyxy.tolist() == ask(region, seed=7).box_xyxy.tolist()
    assert ask(region, seed=7, max_outward=0).box_xyxy.tolist() == [10, 20, 39, 39]


def test_the_prior_is_passed_on():
    prior = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    assert ask(region_of((1, 1)), prior=prior).prior is prior


@pytest.mark.parametrize("shape", [(7, 6), (1, 6, 7)])
def test_another_shape_of_similarity_is_refused(shape):
    with pytest.raises(ValueError, match="same slice"):
        ask(region_of((1, 1)), np.zeros(shape))
