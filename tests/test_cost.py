"""What a first round will cost is measured on a few slices, told, and too much of it refused on a CPU."""

import numpy as np
import pytest
from relabel_tools import SHAPE, BoxGeneralist, Case, scene

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.generalist import cost
from nnunet_gmabs.generalist.cost import Cost, cost_of_first_round, tell


@pytest.fixture
def case(tmp_path):
    noise = np.random.default_rng(0)
    return Case(
        tmp_path, {name: np.concatenate([noise.normal(size=(1, *SHAPE)), scene()], dtype="f4") for name in "ab"}
    )


def test_all_slices_of_all_views_at_the_median_of_those_that_were_tried(case, monkeypatch):
    clock = iter([0.0, 9.0, 10.0, 12.0, 20.0, 23.0])  # 9 s (the first one warms up), 2 s, 3 s
    monkeypatch.setattr(cost.time, "monotonic", lambda: next(clock))
    generalist = BoxGeneralist(has_encoder=True)
    found = cost_of_first_round(case.relabeller(None).asking(generalist), lambda name: (5, 6, 7 + (name == "b")))
    assert found == Cost(slices=18 + 19, seconds_each=3.0, kept=False) and generalist.encoded == 3
    assert found.hours == 37 * 3 / 3600


def test_processes_share_the_slices(case):
    relabeller = case.relabeller(None).asking(BoxGeneralist(has_encoder=True))
    slices = [cost_of_first_round(relabeller, lambda _: SHAPE, processes).slices for processes in (1, 2, 5)]
    assert slices == [36, 18, 8]


def test_without_a_cache_every_round_costs_the_same():
    said = []
    tell(Cost(slices=60, seconds_each=1.0, kept=False), True, 1.0, said.append)
    assert said == [
        "the first round of relabelling encodes up to 60 slices, 1 s each: at most 60 s, and so does each later one"
    ]


def test_without_an_encoder_there_is_nothing_to_tell(case):
    said = []
    relabeller = case.relabeller(BoxGeneralist())
    tell(cost_of_first_round(relabeller, lambda _: SHAPE), True, 0.0, said.append)
    assert cost_of_first_round(case.relabeller(None), lambda _: SHAPE) is None and said == []


@pytest.mark.parametrize(
    ("on_cpu", "accepted", "refused"), [(True, 1.9, True), (True, 2.0, False), (False, 1.9, False)]
)
def test_hours_are_refused_on_a_cpu_alone_and_named(on_cpu, accepted, refused):
    said, two_hours = [], Cost(slices=3600, seconds_each=2.0, kept=True)
    if refused:
        with pytest.raises(
            InputError, match=r"3600 slices, 2 s each: at most 2\.0 h on this CPU.*accept_hours to 2\.[01] "
        ):
            tell(two_hours, on_cpu, accepted, said.append)
        return
    tell(two_hours, on_cpu, accepted, said.append)
    assert said == [
        "the first round of relabelling encodes up to 3600 slices, 2 s each: at most 2.0 h; later rounds read what it "
        "has encoded"
    ]


def test_slices_that_are_in_the_cache_cost_nothing():
    said = []
    tell(Cost(slices=10_000, seconds_each=0.0, kept=True), True, 0.0, said.append)
    assert said == []
