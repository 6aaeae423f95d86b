"""Which scans are exemplars, and scans with their objects."""

import numpy as np
import pytest

from nnunet_gmabs.config import SyntheticConfig
from nnunet_gmabs.data.exemplars import choose_exemplars, find_exemplars
from nnunet_gmabs.data.synthetic_scans import Overlay, SyntheticScans
from nnunet_gmabs.errors import InputError

UNKNOWN = 3
SHAPE = (15, 16, 17)
DRAWN = {"a": {0: 9, 1: 5}, "b": {0: 9, 1: 2, 2: 1}, "c": {1: 4, 2: 4}, "d": {0: 7}}
CLASSES = {"left": 1, "right": 2}


# ---- the choice


def test_the_scan_that_shows_most_classes_is_the_exemplar_then_the_one_that_shows_most_of_them():
    assert choose_exemplars(DRAWN, [1, 2]) == ["c"]
    assert choose_exemplars(DRAWN | {"aa": DRAWN["c"]}, [1, 2]) == ["aa"]


def test_further_scans_join_only_for_classes_that_are_missing():
    assert choose_exemplars({"a": {1: 5, 2: 1}, "b": {3: 1}, "c": {2: 9}}, [1, 2, 3]) == ["a", "b"]
    assert choose_exemplars({"a": {0: 5}}, [1]) == []


@pytest.mark.parametrize(
    ("setting", "dense", "exemplars"),
    [
        ("auto", "abcd", ["c"]),
        ("auto", "abd", ["b"]),
        ("all", "abcd", ["a", "b", "c"]),
        ("all", "bd", ["b"]),
        ("b a", "", ["b", "a"]),
        ("auto", "", []),  # planes are pasted only by name
        ("all", "ad", []),  # "right" is known on planes only
    ],
)
def test_settings_name_exemplars(setting, dense, exemplars):
    assert find_exemplars(setting, DRAWN, set(dense), CLASSES) == exemplars


@pytest.mark.parametrize(
    ("setting", "drawn", "message"),
    [
        ("x", DRAWN, "'x' is no labelled training scan of this fold; there are a, b, c, d"),
        ("a", DRAWN, "none of a shows right"),
        ("auto", {"a": {1: 5}}, "no labelled training scan shows right"),
        ("all", {"a": {0: 5}}, "shows left, right"),
    ],
)
def test_a_missing_exemplar_or_class_is_named(setting, drawn, message):
    with pytest.raises(InputError, match=message):
        find_exemplars(setting, drawn, set(drawn), CLASSES)


# ---- synthetic scans


class Scans:
    """A data set in memory: "exemplar" with dense labels, "scan" with none and two slices outside its nonzero mask."""

    identifiers = ["exemplar", "scan"]
    pseudo_labels = None
    ignore_label = UNKNOWN
    labels_by_key = {1: (1,), 2: (2,), (-1, 0, 1, 2): (-1, 0, 1, 2)}

    def __init__(self, shape=SHAPE):
        rng = np.random.default_rng(0)
        labels = np.zeros((1, *SHAPE), np.int16)
        labels[0, 3:8, 4:10, 5:9] = 1
        labels[0, 4:7, 5:9, 9:12] = 2
        empty = np.full((1, *shape), UNKNOWN, np.int16)
        empty[:, :2] = -2 - UNKNOWN
        images = [rng.normal(0, 1, (2, *s)).astype(np.float32) for s in (SHAPE, shape)]
        self.cases = {"exemplar": (images[0], labels), "scan": (images[1], empty)}

    def load_case(self, identifier):
        return *self.cases[identifier], None, {"class_locations": {}}


def synthetic(scans=None, **settings):
    return SyntheticScans(scans or Scans(), ["exemplar"], SyntheticConfig(**settings), (1, 1, 1), False)


def whole(scans, seed=0):
    """Image, encoded labels and locations of one synthetic scan, read as a whole."""
    image, labels, _, locations, _ = scans.make("scan", np.random.default_rng(seed))
    everything = (slice(None), *(slice(0, n) for n in labels.shape[1:]))
    return image[everything], labels[everything], locations


def test_an_overlay_reads_as_the_array_with_the_box_replaced():
    rng = np.random.default_rng(0)
    base, values = rng.normal(size=(2, 5, 6, 7)), rng.normal(size=(2, 2, 3, 4))
    overlay = Overlay(base, (1, 2, 3), values)
    reference = base.copy()
    reference[:, 1:3, 2:5, 3:7] = values
    assert overlay.shape == base.shape and overlay.dtype == base.dtype
    for _ in range(200):
        ends = [np.sort(rng.choice(n + 1, 2, replace=False)) for n in base.shape[1:]]
        key = (slice(None), *(slice(a, b) for a, b in ends))
        assert np.array_equal(overlay[key], reference[key])


def test_a_synthetic_scan_shows_all_classes_and_is_unknown_elsewhere():
    image, labels, locations = whole(synthetic())
    assert {0, 1, 2, UNKNOWN} <= set(np.unique(labels))
    assert (labels >= UNKNOWN).sum() + (labels < -1).sum() > 0.2 * labels.size
    for key, group in Scans.labels_by_key.items():
        found = locations[key]
        assert len(found) and np.isin(labels[tuple(found.T)], group).all()
    assert image.shape == (2, *SHAPE) and np.isfinite(image).all()


def test_nothing_is_believed_about_a_synthetic_scan_that_was_said_about_the_scan():
    scans = Scans()
    scans.load_case = lambda name: (*scans.cases[name], np.ones(SHAPE, np.int16), {"class_locations": {}})
    pseudo = synthetic(scans).make("scan", np.random.default_rng(0))[2]
    assert pseudo.shape == SHAPE and (pseudo == UNKNOWN).all() and pseudo.dtype == np.int16
    assert synthetic().make("scan", np.random.default_rng(0))[2] is None


def test_nothing_is_written_into_the_scan():
    scans = Scans()
    before = [array.copy() for array in scans.cases["scan"]]
    image, labels, _ = whole(synthetic(scans))
    after = scans.cases["scan"]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    unchanged = (labels == after[1])[0] & (image == after[0]).all(0)
    assert 0.2 < unchanged.mean() < 0.95


def test_elsewhere_is_background_only_when_asked_and_only_for_dense_exemplars():
    _, labels, _ = whole(synthetic(elsewhere="background"))
    assert set(np.unique(labels)) <= {-2, 0, 1, 2}  # -2: background outside the nonzero mask
    scans = Scans()
    scans.cases["exemplar"][1][0, 0] = UNKNOWN
    _, labels, _ = whole(synthetic(scans, elsewhere="background"))
    assert (labels == UNKNOWN).any()


def test_expert_labels_of_the_background_scan_stay():
    scans = Scans()
    scans.cases["scan"][1][0, 5] = 0
    image, labels, _ = whole(synthetic(scans))
    assert (labels[0, 5] == 0).all() and np.array_equal(image[:, 5], scans.cases["scan"][0][:, 5])


def test_scans_follow_from_the_generator_and_differ():
    scans = synthetic()
    assert np.array_equal(whole(scans, 0)[0], whole(scans, 0)[0])
    assert not np.array_equal(whole(scans, 0)[1], whole(scans, 1)[1])


def test_numpys_global_state_decides_in_the_loader():
    scans = synthetic()
    labels = []
    for seed in (0, 0, 1):
        np.random.seed(seed)
        labels.append(scans.load_case("synthetic/scan")[1].values)
    assert np.array_equal(labels[0], labels[1])
    assert labels[0].shape != labels[2].shape or not np.array_equal(labels[0], labels[2])
    assert scans.load_case("scan")[1] is scans.scans.cases["scan"][1]


def test_contrast_and_brightness_vary_after_the_match_by_the_setting_alone():
    def pasted(intensity):
        image, labels, _ = whole(synthetic(intensity=intensity))
        return image[:, np.isin(labels[0], (1, 2))]

    same, half, full = pasted(0.0), pasted(0.5), pasted(1.0)
    gain = half.std(1) / same.std(1)
    assert (abs(np.log(gain)) > 0.05).all() and (abs(half.mean(1) - same.mean(1)) > 0.05).all()
    np.testing.assert_allclose(full.std(1) / same.std(1), gain**2, rtol=1e-3)  # log contrast is in proportion


@pytest.mark.parametrize("shape", [(4, 5, 6), (3, 30, 31)])
def test_an_object_larger_than_the_scan_is_cut_off(shape):
    image, labels, locations = whole(synthetic(Scans(shape)))
    assert image.shape == (2, *shape) and len(locations[1])


def test_an_exemplar_without_foreground_is_named():
    scans = Scans()
    scans.cases["exemplar"][1][:] = 0
    with pytest.raises(InputError, match="'exemplar' shows no foreground"):
        synthetic(scans)
