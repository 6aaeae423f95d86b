"""Paint the planes that were asked for, in the browser.

Starts a small web server on this computer (127.0.0.1 only) and prints an address that works once. Every stroke is saved
at once under gmabs/requests/round_NNN/drafts; a finished scan becomes an answer there, which `gmabs merge` takes.
Stop with Ctrl-C; nothing is lost, and the next start goes on where this one ended.

    gmabs annotate -d 4
    gmabs annotate -d 4 --annotator anna --open
"""

from __future__ import annotations

import argparse
import getpass
from typing import TYPE_CHECKING, Any

from nnunet_gmabs.errors import InputError, first_line
from nnunet_gmabs.wording import count

if TYPE_CHECKING:
    import numpy as np

    from nnunet_gmabs.annotation.raw_folder import RawFolder

PORT = 8017  # always the same one, so that a browser finds unsaved strokes again after a restart


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-d", dest="dataset", metavar="ID", required=True, help="ID, name or folder of the data set")
    parser.add_argument("--round", type=int, metavar="R", help="round of questions (default: the newest)")
    parser.add_argument("--annotator", metavar="NAME", help="your name in the answers (default: your user name)")
    parser.add_argument("--port", type=int, default=PORT, help=f"where the server listens (default: {PORT}; 0: any)")
    parser.add_argument("--open", action="store_true", help="open the browser, too")
    parser.add_argument(
        "--generalist",
        metavar="NAME",
        default="embedded",
        help="generalist that can be asked: embedded (default), walker, sam, mobile_sam, or none",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f'{error.name} is not installed; in the folder of this project run: pip install ".[annotate]"'
        ) from error
    from nnunet_gmabs.annotation.painter.painter import Painter
    from nnunet_gmabs.annotation.painter.server import serve
    from nnunet_gmabs.annotation.raw_folder import RawFolder, find_raw_folder
    from nnunet_gmabs.files import only_one

    raw = RawFolder(find_raw_folder(args.dataset))
    number = newest_round(raw) if args.round is None else args.round
    propose, why_not = load_propose(args.generalist)
    painter = Painter(raw, number, args.annotator or _user_name(), propose, why_not)
    painter.drafts.mkdir(parents=True, exist_ok=True)
    print(
        f"{raw.folder.name}, round {number}: {count(painter.request.number_of_planes, 'plane')} in "
        f"{count(len(painter.request.scans), 'scan')}, painted by {painter.annotator}"
    )
    print(f"generalist: {'ready' if propose else why_not}")
    first = [True]

    def announce(address: str) -> None:
        print(f"open {address}" if first[0] else f"another browser: {address}", flush=True)
        if first[0] and args.open:
            import webbrowser

            webbrowser.open(address)
        first[0] = False

    with only_one(painter.drafts / ".lock", f"gmabs annotate for {painter.annotator} in round {number}"):
        serve(painter, args.port, announce)
    return 0


def newest_round(raw: RawFolder) -> int:
    """The number of the newest round.

    Raises:
        InputError: if nothing was asked yet.
    """
    from nnunet_gmabs.annotation.requests import existing_rounds, requests_folder

    rounds = existing_rounds(raw.folder)
    if not rounds:
        raise InputError(f"{requests_folder(raw.folder)}: nothing was asked yet; run gmabs ask first")
    return rounds[-1]


def load_propose(name: str) -> tuple[Any, str]:
    """The function that asks a generalist (see annotation/painter/generalist.py), or None and why there is none."""
    if name == "none":
        return None, "switched off (--generalist none)"
    try:
        from nnunet_gmabs.config import GeneralistConfig
        from nnunet_gmabs.generalist.models import load_generalist

        return Asker(load_generalist(GeneralistConfig(name=name))), ""  # type: ignore[arg-type] # refuses other names
    except Exception as error:  # painting must go on, whatever is wrong with a model
        return None, f"{name} cannot be loaded ({first_line(error)})"


class Asker:
    """Asks a generalist about one plane; remembers the last slice's embedding, which is usually wanted again.

    Args:
        generalist: see generalist/models.py.
    """

    def __init__(self, generalist: Any) -> None:
        self.generalist = generalist
        self._last: tuple[bytes, Any] = (b"", None)

    def __call__(
        self,
        planes: np.ndarray,
        pixel_mm: tuple[float, float],
        box_xyxy: np.ndarray | None,
        points_xy: np.ndarray,
        point_labels: np.ndarray,
    ) -> tuple[np.ndarray, float]:
        """The mask, (H, W) bool, and its quality; of several boxes around clicks the one with the best quality."""
        import numpy as np

        from nnunet_gmabs.generalist.images import masks_to, prompt_to, resample, square_shape
        from nnunet_gmabs.generalist.prompts import Prompt

        shape = planes.shape[1:]
        square = square_shape(shape, pixel_mm)
        if not self.generalist.wants_neighbours:
            planes = planes[[1, 1, 1]]
        slice_2d = np.moveaxis(np.rint(resample(planes, square)).astype(np.uint8), 0, -1)
        inside = points_xy[point_labels == 1]
        boxes = boxes_around(inside, shape, pixel_mm) if box_xyxy is None else [box_xyxy]
        prompts = [prompt_to(Prompt(box, points_xy, point_labels), shape, square) for box in boxes]
        masks, qualities = self.generalist.segment(self._embedding(np.ascontiguousarray(slice_2d)), prompts)
        best = int(np.argmax(qualities))
        return masks_to(masks[best], shape), float(qualities[best])

    def _embedding(self, slice_2d: np.ndarray) -> Any:
        key = repr(slice_2d.shape).encode() + slice_2d.tobytes()
        last = self._last  # another thread may replace it meanwhile
        if last[0] != key:
            last = self._last = key, self.generalist.encode(slice_2d)
        return last[1]


def boxes_around(points_xy: np.ndarray, shape: tuple[int, ...], pixel_mm: tuple[float, float]) -> list[np.ndarray]:
    """Boxes that might hold what was clicked into, for generalists that need one.

    Squares in mm of a twelfth, a sixth, a third and two thirds of the picture's shorter side around the middle of the
    points, grown to hold all of them and cut at the picture's edges; (4,) float, x0, y0, x1, y1.
    """
    import numpy as np

    pixel_xy, most = np.array(pixel_mm[::-1]), np.array(shape[::-1]) - 1.0
    shorter = min(n * mm for n, mm in zip(shape, pixel_mm, strict=True))
    boxes = []
    for share in (1 / 12, 1 / 6, 1 / 3, 2 / 3):
        half = share * shorter / 2 / pixel_xy
        low = np.minimum(points_xy.mean(axis=0) - half, points_xy.min(axis=0))
        high = np.maximum(points_xy.mean(axis=0) + half, points_xy.max(axis=0))
        boxes.append(np.concatenate([np.clip(low, 0, most), np.clip(high, 0, most)]))
    return boxes


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise InputError("your user name is unknown here; give one with --annotator") from error
