"""Paintings with their history, claims on scans, and how planes become one label map."""

import json

import numpy as np
import pytest

from nnunet_gmabs.annotation.painter import drafts as module
from nnunet_gmabs.annotation.painter.claims import LASTS_S, Claims
from nnunet_gmabs.annotation.painter.compose import NOTHING, Painted, compose, crossing_values
from nnunet_gmabs.annotation.painter.drafts import PlaneDraft
from nnunet_gmabs.annotation.painter.refused import RefusedError
from nnunet_gmabs.errors import InputError

SHAPE = (5, 6)
IGNORE = 3


def mask_with(*pixels, value=1):
    mask = np.zeros(SHAPE, np.uint8)
    for pixel in pixels:
        mask[pixel] = value
    return mask


FIRST, SECOND, THIRD = mask_with((1, 2)), mask_with((1, 2), (3, 4)), mask_with((0, 5), value=2)


@pytest.fixture
def draft(tmp_path):
    return PlaneDraft(tmp_path / "plane", SHAPE)


def test_a_plane_begins_empty_and_leaves_nothing_on_the_disk(draft):
    assert not draft.mask().any() and draft.mask().shape == SHAPE
    assert draft.state.version == 0 and not draft.state.done
    assert not draft.folder.exists()


def test_undo_and_redo_walk_through_everything_that_was_saved(draft):
    for version, mask in enumerate((FIRST, SECOND, THIRD)):
        draft.save(mask, version, "brush")
    again = PlaneDraft(draft.folder, SHAPE)  # as after a restart
    for version, mask in ((3, THIRD), (2, SECOND), (1, FIRST), (0, np.zeros(SHAPE))):
        assert np.array_equal(again.mask(), mask)
        assert again.step(-1, version).version == max(version - 1, 0)
    for version, mask in ((1, FIRST), (2, SECOND), (3, THIRD), (3, THIRD)):
        assert again.step(1, again.state.version).version == version
        assert np.array_equal(again.mask(), mask)


def test_painting_after_undo_forgets_what_could_be_redone(draft):
    draft.save(FIRST, 0, "brush")
    draft.save(SECOND, 1, "proposal")
    draft.step(-1, 2)
    state = draft.save(THIRD, 1, "lasso")
    assert (state.version, state.last) == (2, 2)
    assert state.actions == {"1": "brush", "2": "lasso"}
    assert np.array_equal(draft.mask(), THIRD) and not state.proposal_accepted
    draft.step(-1, 2)
    draft.step(-1, 1)
    assert draft.save(SECOND, 0, "brush").actions == {"1": "brush"}


def test_saving_the_same_again_after_a_lost_answer_changes_nothing(draft):
    draft.save(FIRST, 0, "brush")
    assert draft.save(FIRST, 0, "brush").version == 1


def test_painting_on_an_old_state_is_refused(draft):
    draft.save(FIRST, 0, "brush")
    with pytest.raises(RefusedError, match="another window"):
        draft.save(SECOND, 0, "brush")
    for change in (lambda: draft.step(-1, 0), lambda: draft.set_done(True, 0)):
        with pytest.raises(RefusedError, match="another window"):
            change()
    assert np.array_equal(draft.mask(), FIRST)


def test_a_plane_that_is_done_cannot_be_changed_until_it_is_reopened(draft):
    draft.save(FIRST, 0, "brush")
    assert draft.set_done(True, 1).done
    for change in (lambda: draft.save(SECOND, 1, "brush"), lambda: draft.step(-1, 1)):
        with pytest.raises(RefusedError, match="reopen"):
            change()
    draft.set_done(False, 1)
    assert draft.save(SECOND, 1, "brush").version == 2


def test_a_kill_between_mask_and_state_leaves_the_old_state(draft, monkeypatch):
    draft.save(FIRST, 0, "brush")
    monkeypatch.setattr(module, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        draft.save(SECOND, 1, "brush")
    monkeypatch.undo()
    assert np.array_equal(draft.mask(), FIRST)
    draft.save(THIRD, 1, "brush")
    assert np.array_equal(draft.mask(), THIRD)


def test_a_painting_of_an_image_that_was_replaced_is_named_and_not_shown_skewed(draft):
    draft.save(FIRST, 0, "brush")
    with pytest.raises(InputError) as error:
        PlaneDraft(draft.folder, SHAPE[::-1]).mask()
    assert str(error.value).startswith(
        f"{draft.folder / '000001.npz'}: a painting of 5 x 6 pixels, but the plane has 6 x 5; was the image exported "
    )
    assert f"move {draft.folder} away" in str(error.value)


def test_history_is_bounded(draft, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 3)
    for version in range(10):
        draft.save(mask_with((version % 5, version % 6), value=1 + version % 2), version, "brush")
    assert sorted(path.name for path in draft.folder.glob("*.npz")) == [f"{n:06d}.npz" for n in (7, 8, 9, 10)]
    for version in (10, 9, 8, 7, 7):
        assert draft.state.version == version
        draft.step(-1, version)
    assert draft.mask()[6 % 5, 6 % 6] == 1


def test_a_proposal_counts_as_accepted_until_it_is_undone_or_wiped(draft):
    draft.save(FIRST, 0, "proposal")
    assert draft.save(SECOND, 1, "brush").proposal_accepted
    assert not draft.save(mask_with(), 2, "not here").proposal_accepted
    assert draft.step(-1, 3).proposal_accepted
    draft.step(-1, 2)
    assert not draft.step(-1, 1).proposal_accepted


class Clock:
    """A clock that stands until it is moved."""

    now = 1e9

    def __call__(self):
        return self.now


@pytest.fixture
def two(tmp_path):
    clock = Clock()
    return Claims(tmp_path, "anna", clock), Claims(tmp_path, "bert", clock), clock


def test_a_scan_is_painted_by_one_annotator_at_a_time(two):
    anna, bert, _ = two
    anna.take("scan")
    with pytest.raises(RefusedError, match="anna"):
        bert.take("scan")
    bert.take("other")
    assert anna.holder("scan")[0] == "anna" and anna.holder("other")[0] == "bert"


def test_claims_expire_half_an_hour_after_the_last_sign_of_life(two):
    anna, bert, clock = two
    anna.take("scan")
    clock.now += LASTS_S - 1
    anna.take("scan")
    clock.now += LASTS_S - 1
    with pytest.raises(RefusedError):
        bert.take("scan")
    clock.now += 2
    assert bert.holder("scan") is None
    bert.take("scan")
    with pytest.raises(RefusedError, match="bert"):
        anna.take("scan")


def test_a_scan_that_is_given_back_is_free_but_only_its_holder_can_do_that(two):
    anna, bert, _ = two
    anna.take("scan")
    bert.give_back("scan")
    assert bert.holder("scan")[0] == "anna"
    anna.give_back("scan")
    bert.take("scan")


def test_a_broken_claim_protects_nobody(two, tmp_path):
    anna, bert, _ = two
    anna.take("scan")
    (tmp_path / "claims" / "scan.json").write_text("{")
    bert.take("scan")
    assert json.loads((tmp_path / "claims" / "scan.json").read_text())["annotator"] == "bert"


CUBE = (4, 5, 6)


def painted(axis, index, value, done=True, *, rows=slice(None)):
    mask = np.zeros([n for a, n in enumerate(CUBE) if a != axis], np.uint8)
    mask[rows] = value
    return Painted((axis, index), mask, done)


def test_only_done_planes_enter_the_answer():
    labels, disagree = compose(CUBE, [painted(0, 2, 1, rows=slice(1, 3)), painted(1, 4, 2, done=False)], IGNORE)
    expected = np.full(CUBE, IGNORE)
    expected[2] = 0
    expected[2, 1:3] = 1
    assert np.array_equal(labels, expected) and disagree == 0
    assert (compose(CUBE, [], IGNORE)[0] == IGNORE).all()


def test_where_planes_disagree_the_later_one_decides_and_the_voxels_are_counted():
    first, second = painted(0, 2, 1), painted(1, 4, 2)
    for order, winner in (([first, second], 2), ([second, first], 1)):
        labels, disagree = compose(CUBE, order, IGNORE)
        assert disagree == CUBE[2] and (labels[2, 4] == winner).all()
    assert compose(CUBE, [painted(0, 2, 1), painted(1, 4, 1)], IGNORE)[1] == 0


def reference_crossings(plane, others, known):
    """Voxel by voxel."""
    values = np.full(CUBE, NOTHING, np.uint8) if known is None else known.copy()
    for other in others:
        axis, index = other.plane
        if axis == plane[0]:
            continue
        for voxel in np.ndindex(CUBE):
            if voxel[axis] == index:
                value = other.mask[tuple(i for a, i in enumerate(voxel) if a != axis)]
                if value or other.done:
                    values[voxel] = value
    return values.take(plane[1], plane[0])


@pytest.mark.parametrize("with_known", [False, True])
def test_crossing_values_are_what_other_planes_say_at_the_same_voxels(with_known):
    rng = np.random.default_rng(0)
    planes = [(0, 1), (1, 3), (2, 5), (0, 3), (2, 0)]
    others = []
    for number, (axis, index) in enumerate(planes):
        mask = rng.integers(0, 3, [n for a, n in enumerate(CUBE) if a != axis]).astype(np.uint8)
        others.append(Painted((axis, index), mask, number % 2 == 0))
    known = rng.choice(np.array([0, 1, NOTHING], np.uint8), CUBE) if with_known else None
    for plane in planes:
        found = crossing_values(plane, CUBE, others, known)
        assert np.array_equal(found, reference_crossings(plane, others, known))
