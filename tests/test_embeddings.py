"""Embeddings on disk: each slice is encoded once, the folder stays bounded, damaged entries are never used."""

import os
import shutil
import time
from collections import namedtuple

import numpy as np
import pytest

from nnunet_gmabs.generalist import embeddings
from nnunet_gmabs.generalist.embeddings import EmbeddingCache

SHAPE = (3, 5, 7)
ENTRY = 2 * 3 * 5 * 7  # bytes of one array, without its header


class CountingEncoder:
    """Embeddings that tell slices apart; counts what it is given."""

    def __init__(self):
        self.encoded, self.calls = 0, 0

    def encode_many(self, slices):
        self.encoded, self.calls = self.encoded + len(slices), self.calls + 1
        return [np.arange(105, dtype=np.float32).reshape(SHAPE) / 7 + one.sum() for one in slices]


def slices(number, seed=0, shape=(6, 7, 3)):
    return list(np.random.default_rng(seed).integers(0, 256, (number, *shape), dtype=np.uint8))


def opened(folder, said=None, limit=10**6, weights="w1", model="sam", keep_free=0):
    return EmbeddingCache(folder, model, weights, limit, keep_free, (said if said is not None else []).append)


def entries(folder):
    return sorted(folder.rglob("*.emb"))


def test_a_slice_is_encoded_once_and_comes_back_bit_for_bit(tmp_path):
    encoder, images = CountingEncoder(), slices(4)
    first = opened(tmp_path).encode(encoder, images[:3])
    cache = opened(tmp_path)
    second = cache.encode(encoder, [images[3], *images[:3]])
    assert (encoder.encoded, encoder.calls) == (4, 2)
    assert all(e.dtype == np.float16 and e.shape == SHAPE for e in second)
    for one, other in zip(first, second[1:], strict=True):
        np.testing.assert_array_equal(one, other)
    assert cache.figures() | {"bytes": 0} == dict(hits=3, misses=1, admitted=1, refused=0, damaged=0, bytes=0)
    assert cache.bytes == sum(path.stat().st_size for path in entries(tmp_path))
    opened(tmp_path).encode(encoder, images)
    assert encoder.calls == 2


def test_another_slice_shape_model_or_weights_is_another_entry(tmp_path):
    image = slices(1)[0]
    opened(tmp_path).put(image, np.ones(SHAPE))
    assert opened(tmp_path).get(image) is not None
    changed = image.copy()
    changed[0, 0, 0] ^= 1
    assert opened(tmp_path).get(changed) is None
    assert opened(tmp_path).get(image.reshape(7, 6, 3)) is None
    said = []
    assert opened(tmp_path, said, weights="w2").get(image) is None
    assert opened(tmp_path, said, model="mobile_sam").get(image) is None
    assert len(said) == 2 and "other weights" in said[0]


def test_when_full_it_admits_no_more_and_keeps_what_it_has(tmp_path):
    encoder, images, said = CountingEncoder(), slices(10), []
    cache = opened(tmp_path, said, limit=4 * (ENTRY + 250))
    cache.encode(encoder, images)
    kept = cache.admitted
    assert 3 <= kept <= 5 and cache.refused == 10 - kept
    assert cache.bytes <= cache.limit_bytes
    assert len(said) == 1 and "full" in said[0]
    cache.encode(encoder, images)  # in the same order, as the next round does
    assert cache.hits == kept and encoder.encoded == 20 - kept


def test_entries_of_other_weights_count_towards_the_limit(tmp_path):
    opened(tmp_path).encode(CountingEncoder(), slices(5))
    cache = opened(tmp_path, weights="w2", limit=5 * ENTRY)
    assert not cache.put(slices(1)[0], np.ones(SHAPE))


def test_what_another_process_wrote_counts_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "RECOUNT_SHARE", 1e9)  # however slow the disk is just now
    mine, other = opened(tmp_path, limit=100 * (ENTRY + 250)), opened(tmp_path)
    other.encode(CountingEncoder(), slices(90, seed=1))
    mine.encode(CountingEncoder(), slices(90, seed=2))
    assert mine.admitted < 70 and len(entries(tmp_path)) < 160


@pytest.mark.parametrize(("limit", "what"), [(10**6, "admitted"), (0, "refused")])
def test_measuring_a_large_folder_takes_a_small_share_of_the_time(tmp_path, monkeypatch, limit, what):
    clock = [0.0]
    measured = []

    def measure(folder):
        measured.append(clock[0])
        clock[0] += 3.0  # seconds, of which 1/20 is one minute
        return 0

    monkeypatch.setattr(embeddings, "monotonic", lambda: clock[0])
    monkeypatch.setattr(EmbeddingCache, "_measure", staticmethod(measure))
    cache = opened(tmp_path, limit=limit)
    del measured[:]
    clock[0] = 3.0
    for image in slices(1500):
        cache.put(image, np.ones(SHAPE))
        clock[0] += 0.1
    assert getattr(cache, what) == 1500
    assert measured == pytest.approx([63.0, 126.0], abs=0.2), "of 150 s, although 64 slices take 6.4 s"


def test_room_on_the_disk_is_kept_free(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2000, 0, 1500))
    assert opened(tmp_path, keep_free=1000).put(slices(1)[0], np.ones(SHAPE))
    assert not opened(tmp_path, keep_free=1400).put(slices(2)[1], np.ones(SHAPE))


def damage_cut(path, other):
    path.write_bytes(path.read_bytes()[:-4])


def damage_bit(path, other):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def damage_foreign(path, other):
    path.write_bytes(other.read_bytes())


def damage_old(path, other):
    path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 0'))


def damage_garbage(path, other):
    path.write_bytes(b"\x00\xff\xfe")


def damage_empty(path, other):
    path.write_bytes(b"")


def damage_json(path, other):
    path.write_bytes(b"[1]\n")


@pytest.mark.parametrize(
    "damage", [damage_cut, damage_bit, damage_foreign, damage_old, damage_garbage, damage_empty, damage_json]
)
def test_a_damaged_or_foreign_entry_is_said_and_made_anew(tmp_path, damage):
    encoder, images, said = CountingEncoder(), slices(2), []
    expected = opened(tmp_path).encode(encoder, images)
    path, other = entries(tmp_path)
    damage(path, other)
    cache = opened(tmp_path, said)
    for one, known in zip(cache.encode(encoder, images), expected, strict=True):
        np.testing.assert_array_equal(one, known)
    assert encoder.encoded == 3 and cache.damaged == 1
    assert len(said) == 1 and str(path) in said[0] and "encoded anew" in said[0]
    assert opened(tmp_path).encode(encoder, images) and encoder.encoded == 3


def test_a_disk_that_fills_up_stops_the_keeping_not_the_encoding(tmp_path, monkeypatch):
    encoder, images, said = CountingEncoder(), slices(3), []
    cache = opened(tmp_path, said)

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert len(cache.encode(encoder, images)) == 3
    assert cache.refused == 3 and any("No space left" in line for line in said)
    assert list(cache.folder.iterdir()) == []


def test_half_written_files_of_dead_processes_go(tmp_path):
    folder = opened(tmp_path).folder
    old, new = folder / ".aa.tmp", folder / ".bb.tmp"
    for path in (old, new):
        path.write_bytes(b"1")
    os.utime(old, (time.time() - 7200,) * 2)
    opened(tmp_path)
    assert not old.exists() and new.exists()
