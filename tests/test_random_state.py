"""Random states: seeded together, saved and restored together, through a file that holds no code."""

import random

import numpy as np
import pytest
import torch

from nnunet_gmabs.trainers import checkpoint
from nnunet_gmabs.trainers.random_state import capture, restore, restore_generator, seed_everything, seed_of_rank

CPU = torch.device("cpu")


def draw():
    """A number of every source; an odd number of normal ones leaves python and numpy with one in hand."""
    return random.gauss(0, 1), random.random(), np.random.normal(), np.random.random(), torch.randn(3).tolist()


def test_equal_seeds_give_equal_numbers_from_every_source():
    seed_everything(3, 1)
    first = draw()
    seed_everything(3, 1)
    assert draw() == first


def test_other_seeds_give_other_numbers_from_every_source():
    draws = []
    for entropy in ((3, 1), (3, 2), (4, 1), (1, 3)):
        seed_everything(*entropy)
        draws.append(draw())
    for source in zip(*draws, strict=True):
        assert len({str(value) for value in source}) == 4


def test_the_sources_do_not_share_a_seed():
    seed_everything(0)
    together = draw()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    assert all(one != two for one, two in zip(draw(), together, strict=True))


def test_restored_states_go_on_where_they_stood_through_a_file(tmp_path):
    seed_everything(5)
    draw()
    checkpoint.save({"random": capture(CPU)}, tmp_path / "state.pth")
    expected = [draw() for _ in range(3)]
    seed_everything(6)
    restore(torch.load(tmp_path / "state.pth", weights_only=True)["random"], CPU)
    assert [draw() for _ in range(3)] == expected


def test_capturing_draws_nothing():
    seed_everything(5)
    capture(CPU)
    first = draw()
    seed_everything(5)
    assert draw() == first


def test_a_generator_goes_on_where_it_stood_unless_the_state_is_that_of_another_kind_of_device():
    generator = torch.Generator().manual_seed(3)
    state = generator.get_state()
    expected = torch.rand(4, generator=generator)
    restore_generator(generator, torch.zeros(16, dtype=torch.uint8))  # a CUDA generator's state has 16 bytes
    assert not torch.equal(torch.rand(4, generator=generator), expected)
    restore_generator(generator, state)
    assert torch.equal(torch.rand(4, generator=generator), expected)


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_processes_of_one_training_draw_other_numbers_on_a_cpu(seed):
    drawn = [torch.rand(4, generator=torch.Generator().manual_seed(seed_of_rank(seed, rank))) for rank in range(8)]
    assert torch.equal(drawn[0], torch.rand(4, generator=torch.Generator().manual_seed(seed))), "as a process alone"
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == 8
