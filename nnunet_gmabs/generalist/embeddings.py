"""Embeddings kept on disk, so that a slice is encoded at most once in the life of a data set.

<preprocessed data set>/gmabs_embeddings/<key>/<slice>.emb: the key says which weights encoded, the name is the hash of
the 8-bit slice as the generalist saw it. So another image, window, resampling or model is another name, and nothing
can be taken for something else. An entry is one line of JSON and then the float16 array.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import numpy as np

LOGGER = logging.getLogger(__name__)
FORMAT = 1
RECOUNT = 64  # entries offered after which the folder is measured again: other processes write too
RECOUNT_SHARE = 0.05  # of the time at most: 50,000 entries take seconds, on a network disk far more
ABANDONED_S = 3600.0  # age of a half-written file that no living process can be writing


class _Encoder(Protocol):
    def encode_many(self, slices: Sequence[np.ndarray]) -> list[np.ndarray]: ...


class EmbeddingCache:
    """A bounded folder of embeddings; several processes may use it at once.

    When it is full it admits no more and keeps what it has: scans are read in the same order in every round, and a
    cache that made room for the newest would then never hold what is asked for next.

    Args:
        folder: gmabs_embeddings of a data set; made where it is not there.
        model: name of the generalist.
        weights_hash: of its weights.
        limit_bytes: all entries together take at most this, those of other weights included.
        keep_free_bytes: what stays free on the disk.
        say: gets a line for a person when something is not as it should be.

    Attributes:
        hits, misses: lookups answered, and not.
        admitted, refused: embeddings stored, and not for want of room.
        damaged: entries that could not be used and were removed.
        bytes: of all entries, those of other weights included.
        others: bytes of entries by other weights, when it was opened.
    """

    def __init__(
        self,
        folder: Path,
        model: str,
        weights_hash: str,
        limit_bytes: int,
        keep_free_bytes: int = 2 << 30,
        say: Callable[[str], object] = LOGGER.warning,
    ) -> None:
        self.root = Path(folder)
        self.key = f"{model}-{_hash(f'{FORMAT} {model} {weights_hash}'.encode())[:16]}"
        self.folder = self.root / self.key
        self.limit_bytes, self.keep_free_bytes, self.say = limit_bytes, keep_free_bytes, say
        self.hits = self.misses = self.admitted = self.refused = self.damaged = self.bytes = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()
        self._recount()
        self.others = self.bytes - self._measure(self.folder)
        if self.others:
            say(
                f"{self.root}: {self.others / 1e9:.2f} GB of embeddings by other weights than {self.key}; they count "
                "towards the limit, delete their folders when no training uses them"
            )

    def encode(self, generalist: _Encoder, slices: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Embeddings (float16) of slices, in one call of the encoder for those that are not in the cache.

        Args:
            generalist: with the weights that this cache was opened for.
            slices: (H, W, 3) uint8 each.
        """
        embeddings = [self.get(one) for one in slices]
        missing = [i for i, known in enumerate(embeddings) if known is None]
        new = generalist.encode_many([slices[i] for i in missing]) if missing else []
        for i, embedding in zip(missing, new, strict=True):
            embeddings[i] = _as_stored(embedding)
            self.put(slices[i], embedding)
        return [embedding for embedding in embeddings if embedding is not None]

    def holds(self, slice_2d: np.ndarray) -> bool:
        """Whether there is an entry for a slice; it is not read, so that it might still be damaged."""
        return self._path(slice_2d).is_file()

    def get(self, slice_2d: np.ndarray) -> np.ndarray | None:
        """The embedding of a slice as it was stored; None where it is not here, or its file is damaged (said)."""
        path = self._path(slice_2d)
        try:
            embedding = self._parse(path.read_bytes(), path.stem)
        except FileNotFoundError:
            embedding = None
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.damaged += 1
            self.say(f"{path}: not usable ({error}); removed, the slice is encoded anew")
            path.unlink(missing_ok=True)
            embedding = None
        self.hits, self.misses = self.hits + (embedding is not None), self.misses + (embedding is None)
        return embedding

    def put(self, slice_2d: np.ndarray, embedding: np.ndarray) -> bool:
        """Keep an embedding as float16, replacing its file atomically; False when there is no room."""
        path, stored = self._path(slice_2d), _as_stored(embedding)
        content = stored.tobytes()
        header = self._header(path.stem) | {"shape": list(stored.shape), "crc32": zlib.crc32(content)}
        entry = json.dumps(header).encode() + b"\n" + content
        try:
            fits = self._fits(len(entry))
            if fits:
                _replace(path, entry)
        except OSError as error:
            self.limit_bytes, fits = 0, False
            self.say(f"{path}: cannot be written ({error}); embeddings are no longer kept")
        if not fits:
            if not self.refused:
                self.say(f"{self.root}: full at {self.bytes / 1e9:.2f} GB; what is not in it is encoded in every round")
            self.refused += 1
            return False
        self.admitted, self.bytes = self.admitted + 1, self.bytes + len(entry)
        return True

    def figures(self) -> dict[str, int]:
        """The counts so far, for a log."""
        return {name: getattr(self, name) for name in ("hits", "misses", "admitted", "refused", "damaged", "bytes")}

    def _fits(self, size: int) -> bool:
        offered, now = self.admitted + self.refused, monotonic()
        if offered - self._recounted_at >= RECOUNT and now >= self._recount_from:
            self._recount()
        free = shutil.disk_usage(self.folder).free
        return self.bytes + size <= self.limit_bytes and free - size >= self.keep_free_bytes

    def _recount(self) -> None:
        """Measure the folder, and set when that may be done again."""
        start = monotonic()
        self.bytes = self._measure(self.root)
        end = monotonic()
        self._recounted_at = self.admitted + self.refused
        self._recount_from = end + (end - start) / RECOUNT_SHARE

    def _path(self, slice_2d: np.ndarray) -> Path:
        pixels = np.ascontiguousarray(slice_2d)
        return self.folder / f"{_hash(f'{pixels.shape} {pixels.dtype}'.encode() + pixels.tobytes())}.emb"

    def _header(self, name: str) -> dict[str, Any]:
        return {"format": FORMAT, "key": self.key, "slice": name}

    def _parse(self, entry: bytes, name: str) -> np.ndarray:
        """The array of an entry; ValueError where it is not what it should be."""
        line, _, content = entry.partition(b"\n")
        header = json.loads(line)
        if {field: header[field] for field in ("format", "key", "slice")} != self._header(name):
            raise ValueError("it belongs to another slice, model or version")
        if zlib.crc32(content) != header["crc32"]:
            raise ValueError("its content has changed")
        return np.frombuffer(content, dtype=np.float16).reshape(header["shape"]).copy()  # may be written to

    @staticmethod
    def _measure(folder: Path) -> int:
        """Bytes of all entries below a folder."""
        total = 0
        for path in folder.rglob("*.emb"):
            try:
                total += path.stat().st_size
            except FileNotFoundError:  # another process has just removed it
                continue
        return total

    def _remove_abandoned(self) -> None:
        for path in self.folder.glob(".*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    path.unlink()
            except FileNotFoundError:
                continue


def _as_stored(embedding: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(embedding, dtype=np.float16)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _replace(path: Path, entry: bytes) -> None:
    """Write beside and move over, without waiting for the disk: an entry torn by a power cut fails its checksum."""
    temporary = path.with_name(f".{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(entry)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
