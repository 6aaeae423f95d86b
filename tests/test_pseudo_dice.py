"""What is told of classes that are not found."""

import math

from nnunet_gmabs.trainers.pseudo_dice import hardly_found


def test_classes_that_are_hardly_found_are_told_and_an_unknown_dice_says_nothing():
    [one, region] = hardly_found([1, 2, 3, (4, 5)], [0.0, 0.2, math.nan, 0.1984])
    assert one.startswith("WARNING: class 1 has a pseudo Dice of 0.00 in the last epoch: hardly found")
    assert region.startswith("WARNING: class (4, 5) has a pseudo Dice of 0.20")
    assert hardly_found([], []) == []
