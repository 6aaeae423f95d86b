"""How a label file lies on the grid of its scan; sizes and places are x, y, z."""

import numpy as np
import pytest

from nnunet_gmabs.annotation.geometry import Grid, embed, offset_on
from nnunet_gmabs.errors import InputError

TURN = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # x runs along the second world axis, y against the first


def grid(size=(5, 6, 7), spacing=(1.0, 2.0, 0.5), origin=(10.0, -20.0, 30.0), direction=TURN):
    return Grid(np.array(size), np.array(spacing), np.array(origin), np.array(direction))


def test_the_same_grid_is_not_moved():
    assert offset_on(grid(), grid()) == (0, 0, 0)
    assert offset_on(grid(origin=(10.004, -20, 30)), grid()) == (0, 0, 0), "rounding in a header"


def test_a_part_is_put_back_where_it_was():
    # voxel (1, 2, 4) of the whole lies at origin + 1 * 1.0 * (0, 1, 0) + 2 * 2.0 * (-1, 0, 0) + 4 * 0.5 * (0, 0, 1)
    part = grid(size=(3, 2, 2), origin=(6.0, -19.0, 32.0))
    assert offset_on(part, grid()) == (1, 2, 4)
    values = np.arange(1, 13).reshape(2, 2, 3)
    whole = embed(values, (1, 2, 4), grid().size)
    assert whole.shape == (7, 6, 5) and (whole > 0).sum() == 12
    assert np.array_equal(whole[4:6, 2:4, 1:4], values)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"origin": (10.0, -17.0, 30.0)},
            r"shifted by \+3.00 x \+0.00 x \+0.00 voxels \(\+0.000 x \+3.000 x \+0.000 mm\)",
        ),
        ({"origin": (10.0, -20.0, 30.2)}, r"shifted by .* x \+0.40 voxels"),
        ({"origin": (6.0, -19.0, 32.2), "size": (3, 2, 2)}, r"shifted by \+1.00 x \+2.00 x \+4.40 voxels"),
        ({"spacing": (1.0, 2.0, 0.6)}, "voxels of 1.000 x 2.000 x 0.600 mm, the image has 1.000 x 2.000 x 0.500 mm"),
        ({"size": (6, 6, 7)}, r"covers voxels 0..5 x 0..5 x 0..6 of an image that has 0..4 x 0..5 x 0..6"),
        ({"origin": (12.0, -20.0, 30.0), "size": (3, 2, 2)}, r"covers voxels 0..2 x -1..0 x 0..1"),
        (
            {"direction": TURN * [1, -1, 1], "origin": (0.0, -20.0, 30.0)},
            r"axis y runs the other way than in the image \(flipped\); its first voxel is shifted by -10.000 x",
        ),
        ({"direction": np.eye(3)}, "turned by up to 90.0 degrees"),
    ],
)  # fmt: skip
def test_what_lies_elsewhere_is_refused_with_how_far(other, message):
    with pytest.raises(InputError, match=message):
        offset_on(grid(**other), grid())
