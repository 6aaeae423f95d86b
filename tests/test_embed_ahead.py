"""Slices encoded before they are asked for: by parts, by a part that was killed, and what is said before."""

import numpy as np
import pytest
from relabel_tools import SHAPE, Case, Rounding, scene
from test_generalist_sam import checkpoint, sam, small_models_count_as_vit_b  # noqa: F401

from nnunet_gmabs import cli
from nnunet_gmabs.config import GeneralistConfig
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.generalist.embed_ahead import EmbedAhead, duration
from nnunet_gmabs.generalist.from_plans import embedding_cache
from nnunet_gmabs.generalist.models import load_generalist

NAMES = list("abc")
OF_A_SCAN = sum(SHAPE)


@pytest.fixture
def case(tmp_path):
    images = {}
    for number, name in enumerate(NAMES):  # noise: two slices that look the same would be one
        images[name] = np.concatenate([np.random.default_rng(number).normal(size=(1, 5, 6, 7)), scene()], dtype="f4")
    return Case(tmp_path, images, spacing_mm=(1.0, 2.0, 1.0))


class Counted:
    """The small Sam with a cache for a data set, as one process sees them."""

    def __init__(self, case, checkpoint, gib=1.0):  # noqa: F811
        self.generalist = load_generalist(GeneralistConfig(name="sam", checkpoint=str(checkpoint)))
        self.calls, self.said = [], []
        self.generalist.sam.image_encoder.register_forward_pre_hook(lambda _, given: self.calls.append(len(given[0])))
        cache = embedding_cache(case.folder / "gmabs_embeddings", self.generalist, gib, self.said.append)
        self.relabeller = case.relabeller(None).asking(self.generalist, cache=cache)
        self.job = EmbedAhead(self.relabeller, lambda _: SHAPE, 4, self.said.append)


def entries(case):
    return {path.name for path in (case.folder / "gmabs_embeddings").rglob("*.emb")}


def test_a_round_encodes_nothing_after_it(case, checkpoint):  # noqa: F811
    first = Counted(case, checkpoint)
    first.job.run(NAMES)
    assert sum(first.calls) == first.job.encoded == first.job.seen == len(entries(case)) == 3 * OF_A_SCAN
    assert max(first.calls) == 4
    second = Counted(case, checkpoint)
    figures, _ = second.relabeller.run(Rounding(), 1)
    assert figures["slices"] == 3 * (4 + 5 + 6)
    assert figures["encoded"] == 0 and second.calls == []


def test_parts_share_the_work_and_leave_nothing_out(case, checkpoint, tmp_path):  # noqa: F811
    encoded = []
    for number in range(2):
        part = Counted(case, checkpoint)
        part.job.run(NAMES, slice(number, None, 2))
        encoded.append(part.job.encoded)
        assert f"54 slices of 3 scans, views along axes 0, 1, 2; in this part {encoded[-1]} slices" in part.said[0]
    assert encoded == [2 * OF_A_SCAN, OF_A_SCAN]
    (tmp_path / "whole").mkdir()
    whole = Case(tmp_path / "whole", case.images, spacing_mm=case.spacing_mm)
    Counted(whole, checkpoint).job.run(NAMES)
    assert entries(whole) == entries(case)


def test_a_killed_part_goes_on_where_it_was(case, checkpoint):  # noqa: F811
    killed = Counted(case, checkpoint)

    def dies(given):
        if sum(killed.calls) >= OF_A_SCAN + 5:
            raise KeyboardInterrupt

    killed.generalist.sam.image_encoder.register_forward_pre_hook(lambda _, given: dies(given))
    with pytest.raises(KeyboardInterrupt):
        killed.job.run(NAMES)
    kept = len(entries(case))
    assert OF_A_SCAN < kept < 2 * OF_A_SCAN
    again = Counted(case, checkpoint)
    again.job.run(NAMES)
    assert sum(again.calls) == again.job.encoded == 3 * OF_A_SCAN - kept
    assert again.job.seen == 3 * OF_A_SCAN


def test_slices_disk_and_time_are_said_before_and_after_a_few(case, checkpoint):  # noqa: F811
    one = Counted(case, checkpoint)
    one.job.run(NAMES)
    slices, disk, time = one.said
    assert slices.startswith("54 slices of 3 scans")
    assert disk.startswith(f"{17 * 8 * 8 * 2 / 2**20:.3g} MiB each, at most {54 * 17 * 8 * 8 * 2 / 2**30:.3g} GiB")
    # the first slice tells the size; 4 more of axis 0, and 4 of axis 1, are timed
    assert "s a slice: at most" in time and time.endswith("for the 45 slices that are left")
    two = Counted(case, checkpoint)
    two.job.run(NAMES)
    assert len(two.said) == 2, "nothing to wait for"


def test_too_small_a_cache_is_refused_before_the_work(case, checkpoint):  # noqa: F811
    one = Counted(case, checkpoint, gib=50 * 2176 / 2**30)
    with pytest.raises(InputError, match=r"may hold .* \(generalist.cache_gib\), too little for .*; set it to 0.1, or"):
        one.job.run(NAMES)
    assert sum(one.calls) == 1


def test_a_disk_that_fills_up_ends_it_and_what_is_encoded_stays(case, checkpoint):  # noqa: F811
    one = Counted(case, checkpoint)
    one.relabeller.cache.keep_free_bytes = 1 << 60
    with pytest.raises(InputError, match="no more room, by generalist.cache_gib or on the disk; what is encoded stays"):
        one.job.run(NAMES)
    assert any("that may be too little" in line for line in one.said)


def test_only_views_that_a_round_shows_are_embedded(case, checkpoint):  # noqa: F811
    one = Counted(case, checkpoint)
    thick = Case(case.folder, case.images, spacing_mm=(5.0, 1.0, 1.0))
    relabeller = thick.relabeller(None, views="well-resolved").asking(one.generalist, cache=one.relabeller.cache)
    job = EmbedAhead(relabeller, lambda _: SHAPE, 4, one.said.append)
    job.run(NAMES)
    assert job.encoded == 3 * SHAPE[0] and "views along axes 0;" in one.said[0]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (99, "99 s"), (100, "2 min"), (7200, "2.0 h")])
def test_durations_have_the_unit_that_suits_them(seconds, text):
    assert duration(seconds) == text


def test_a_part_that_does_not_exist_is_named(capsys):
    assert cli.main(["embed", "-d", "1", "-c", "2d", "-num_parts", "2", "-part_id", "2"]) == 2
    assert "-part_id 2: must be from 0 to 1" in capsys.readouterr().err
