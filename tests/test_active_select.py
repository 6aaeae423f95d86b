"""Strategies: exactly as many scans as asked for, the same for the same seed in any order, each with its reason."""

import numpy as np
import pytest

from nnunet_gmabs.active.select import STRATEGIES, affordable_scans, painting_minutes, select_scans

NAMES = [f"scan_{i:02d}" for i in range(30)]
SCORES = np.random.default_rng(5).permutation(30) / 30
FEATURES = np.random.default_rng(6).random((30, 20))


def rng(seed=0):
    return np.random.default_rng(seed)


def choose(name, number, seed=0, order=None, **changes):
    order = range(30) if order is None else order
    given = {"scores": [SCORES[i] for i in order], "features": FEATURES[list(order)]} | changes
    return select_scans(STRATEGIES[name], [NAMES[i] for i in order], number, rng(seed), **given)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("number", [1, 2, 3, 29, 30])
def test_exactly_as_many_scans_as_asked_for(name, number):
    assert len({scan.identifier for scan in choose(name, number)}) == number


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_choice_follows_the_seed_and_not_the_order_of_the_scans(name):
    order = rng(9).permutation(30)
    assert choose(name, 5, 1) == choose(name, 5, 1, order)


@pytest.mark.parametrize("name", ["random", "foreground-random"])
def test_random_choices_differ_between_seeds(name):
    assert choose(name, 5, 1) != choose(name, 5, 2)


@pytest.mark.parametrize("name", ["uncertainty", "disagreement"])
def test_the_highest_scores_come_first(name):
    highest = sorted(range(30), key=lambda i: -SCORES[i])[:4]
    chosen = choose(name, 4)
    assert [scan.identifier for scan in chosen] == [NAMES[i] for i in highest]
    assert [scan.score for scan in chosen] == [SCORES[i] for i in highest]
    assert chosen[1].reason == f"rank 2 of 30 by score of {name}"


def test_uncertainty_diverse_takes_one_of_each_cluster_of_the_most_uncertain_tenth():
    names = [f"s{i:03d}" for i in range(100)]
    scores = np.arange(100) / 100  # the tenth: 90..99
    features = np.zeros((100, 2))
    features[90:97] = [1.0, 0.0]
    features[97:] = [0.0, 1.0]
    chosen = select_scans(STRATEGIES["uncertainty-diverse"], names, 2, rng(), scores, features)
    assert [scan.identifier for scan in chosen] == ["s099", "s096"]
    assert chosen[1].reason == "rank 4 of 100 by score of uncertainty, first of its cluster among the 10 highest"


def test_with_few_scans_the_shortlist_holds_as_many_as_are_asked_for():
    chosen = choose("uncertainty-diverse", 4)  # a tenth of 30 would be 3
    highest = sorted(range(30), key=lambda i: -SCORES[i])[:4]
    assert [scan.identifier for scan in chosen] == [NAMES[i] for i in highest]


def test_cold_start_takes_typical_images_of_kinds_that_are_not_labelled():
    names, features = list("abcdefg"), np.array([[0.0], [1.0], [2.0], [50.0], [51.0], [52.5], [99.0]])
    chosen = select_scans(STRATEGIES["cold-start"], names, 2, rng(), features=features)
    assert [scan.identifier for scan in chosen] == ["f", "b"], "two clusters: 0 to 2, and 50 to 99 around 63"
    assert [scan.score for scan in chosen] == [4 / 7, 3 / 7]
    known = np.array([[1.5]])
    chosen = select_scans(STRATEGIES["cold-start"], names, 2, rng(), features=features, known_features=known)
    assert [scan.identifier for scan in chosen] == ["e", "g"]
    assert chosen[0].reason == "most typical of 3 similar images without a labelled one"


def test_which_strategies_need_a_model():
    assert [name for name, strategy in STRATEGIES.items() if not strategy.needs_model] == ["random", "cold-start"]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("random", {"number": 31}, "31 scans asked for, but there are 30"),
        ("random", {"number": 0}, "0 scans asked for"),
        ("uncertainty", {"scores": None}, r"needs scores \(uncertainty\)"),
        ("cold-start", {"features": FEATURES[1:]}, r"needs features \(descriptor\)"),
    ],
)
def test_what_is_missing_is_named(name, changes, message):
    with pytest.raises(ValueError, match=message):
        choose(name, **{"number": 2} | changes)


def test_budgets_are_in_planes_and_minutes():
    assert affordable_scans(4, 3, None) == 4
    assert [affordable_scans(4, 3, planes) for planes in (0, 2, 3, 11, 12, 60)] == [0, 0, 1, 3, 4, 4]
    assert painting_minutes(12) == 24.0 and painting_minutes(4, 0.5) == 2.0
