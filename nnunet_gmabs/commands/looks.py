"""What scans look like to a model, kept in files: so that looking can be shared, killed, and run again.

<raw data set>/gmabs/looks/<key>/<scan>.json holds the score and the features by which a strategy chooses; the key says
what is scored and by which checkpoints. Each file notes the scan's image files as they were, and a changed scan is
looked at again. <key>/asked/ notes which rounds were asked by these looks. All of it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nnunet_gmabs.active.select import Strategy
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import Request, existing_rounds, read_request
from nnunet_gmabs.files import write_json

if TYPE_CHECKING:
    from nnunet_gmabs.commands.asking import AskOptions

FORMAT = 1


class _Known(Protocol):
    def made_from(self) -> Any: ...


@dataclass(frozen=True)
class Look:
    """At one scan.

    Attributes:
        score: None where the strategy has none for this scan.
        features: (D,) float; None where the strategy has none.
    """

    score: float | None
    features: np.ndarray | None


class Looks:
    """The looks at the scans of a data set, for one way of scoring and one set of models.

    Args:
        raw: the data set.
        strategy: says what is scored and described.
        models: whose checkpoints decide the key; none where the strategy asks none.
    """

    def __init__(self, raw: RawFolder, strategy: Strategy, models: Sequence[_Known] = ()) -> None:
        self.raw = raw
        asked = [model.made_from() for model in models] if strategy.score else []
        key = _hash([FORMAT, strategy.score, strategy.features, asked])
        self.folder = raw.folder / "gmabs" / "looks" / f"{strategy.score or strategy.features}-{key}"

    def get(self, identifier: str, score: bool) -> Look | None:
        """The look at a scan as it is now; None where there is none, or none with the score that is wanted."""
        try:
            stored = json.loads(self._path(identifier).read_text(encoding="utf-8"))
            if stored["images"] != self._stamps(identifier) or (score and stored["score"] is None):
                return None
            features = stored["features"]
            return Look(stored["score"], None if features is None else np.array(features, dtype=float))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def put(self, identifier: str, look: Look) -> None:
        """Keep a look, replacing its file atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        features = None if look.features is None else look.features.astype(float).tolist()
        write_json(  # Python writes floats so that they are read back exactly
            self._path(identifier),
            {"images": self._stamps(identifier), "score": look.score, "features": features},
        )

    def asked(self, options: AskOptions) -> int | None:
        """The round that was asked by these looks with these options; None where there is none."""
        try:
            noted = json.loads(self._note(options).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        number = noted.pop("round")
        if number not in existing_rounds(self.raw.folder):
            return None  # killed after the note, before the round was there
        request = read_request(self.raw.folder, number)
        return number if noted == _choice(request) else None

    def note(self, options: AskOptions, request: Request, number: int) -> None:
        """Note, before a round is written, that it is asked by these looks: whoever comes later asks no second one."""
        path = self._note(options)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"round": number, **_choice(request)})

    def _note(self, options: AskOptions) -> Path:
        return self.folder / "asked" / f"{_hash(asdict(options))}.json"

    def _path(self, identifier: str) -> Path:
        return self.folder / f"{identifier}.json"

    def _stamps(self, identifier: str) -> list[list[Any]]:
        """Name, size and time of the image files."""
        files = self.raw.images_of(identifier)
        return [[path.name, (stat := path.stat()).st_size, stat.st_mtime_ns] for path in files]


def _choice(request: Request) -> dict[str, Any]:
    """What tells a round from others."""
    planes = {scan.identifier: [list(plane.plane) for plane in scan.planes] for scan in request.scans}
    return {"strategy": request.strategy, "seed": request.seed, "planes": planes}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
