"""The painter's web side: addresses, bytes and JSON; what they do is in painter.py.

Pictures travel as raw bytes, row by row, in the screen's order: little-endian uint16 for grey values, uint8 for labels.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from nnunet_gmabs.annotation.painter import generalist
from nnunet_gmabs.annotation.painter.describe import describe_round, describe_scan, describe_state
from nnunet_gmabs.annotation.painter.drafts import State
from nnunet_gmabs.annotation.painter.messages import (
    number,
    picture_answer,
    plane_of,
    read_json,
    read_picture,
    refusal,
)
from nnunet_gmabs.annotation.painter.painter import Painter
from nnunet_gmabs.annotation.painter.refused import RefusedError
from nnunet_gmabs.annotation.painter.security import Door, Guard
from nnunet_gmabs.annotation.planes import Plane
from nnunet_gmabs.errors import InputError

PAGE = Path(__file__).with_name("page")
PLANE = "/api/scans/{identifier}/{axis:int}/{index:int}"


def make_app(painter: Painter, door: Door) -> ASGIApp:
    """The web application of one annotator."""
    handlers = Handlers(painter)
    routes = [
        Route("/", lambda request: FileResponse(PAGE / "index.html")),
        Route("/api/round", handlers.round),
        Route("/api/scans/{identifier}/open", handlers.open, methods=["POST"]),
        Route("/api/scans/{identifier}/release", handlers.release, methods=["POST"]),
        Route("/api/scans/{identifier}/time", handlers.time, methods=["POST"]),
        Route("/api/scans/{identifier}/finish", handlers.finish, methods=["POST"]),
        Route(f"{PLANE}/image", handlers.image),
        Route(f"{PLANE}/mask", handlers.mask),
        Route(f"{PLANE}/mask", handlers.save, methods=["PUT"]),
        Route(f"{PLANE}/step", handlers.step, methods=["POST"]),
        Route(f"{PLANE}/done", handlers.done, methods=["POST"]),
        Route(f"{PLANE}/crossings", handlers.crossings),
        Route(f"{PLANE}/proposal", handlers.proposal),
        Route(f"{PLANE}/ask", handlers.ask, methods=["POST"]),
        Route("/favicon.ico", lambda request: FileResponse(PAGE / "icon.svg")),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]
    app = Starlette(routes=routes, exception_handlers={RefusedError: refusal, InputError: refusal, OSError: refusal})
    return Guard(app, door)


class Handlers:
    """One method for each address. Reading and writing files happens on threads, so that nothing waits for it."""

    def __init__(self, painter: Painter) -> None:
        self.painter = painter

    def round(self, request: Request) -> Response:
        """The list of scans."""
        return JSONResponse(describe_round(self.painter))

    def open(self, request: Request) -> Response:
        """Claim a scan and describe it."""
        identifier = request.path_params["identifier"]
        self.painter.open(identifier)
        return JSONResponse(describe_scan(self.painter, identifier))

    def release(self, request: Request) -> Response:
        """Let others have the scan; the drafts stay."""
        self.painter.claims.give_back(self.painter.requested(request.path_params["identifier"]).identifier)
        return JSONResponse({})

    async def time(self, request: Request) -> Response:
        """Count active seconds."""
        seconds = number((await read_json(request)).get("seconds"))
        total = await run_in_threadpool(self.painter.add_seconds, request.path_params["identifier"], seconds)
        return JSONResponse({"seconds": total})

    async def finish(self, request: Request) -> Response:
        """Write the answer; where planes disagree, only when the annotator has said that this is all right."""
        identifier = request.path_params["identifier"]
        anyway = (await read_json(request)).get("anyway") is True
        disagree = await run_in_threadpool(self.painter.disagreements, identifier)
        if disagree and not anyway:
            return JSONResponse({"finished": False, "disagreements": disagree})
        path = await run_in_threadpool(self.painter.finish, identifier)
        return JSONResponse({"finished": True, "disagreements": disagree, "file": str(path)})

    def image(self, request: Request) -> Response:
        """Grey values."""
        channel = int(number(request.query_params.get("channel", 0)))
        picture = self.painter.picture_of_scan(*plane_of(request), channel)
        return picture_answer(picture.astype("<u2"))

    def mask(self, request: Request) -> Response:
        """The current painting."""
        return self._painting(*plane_of(request))

    async def save(self, request: Request) -> Response:
        """Keep a painting."""
        identifier, plane = plane_of(request)
        scan = await run_in_threadpool(self.painter.scan, identifier)
        picture = await read_picture(request, scan.picture_shape(plane[0]))
        base = int(number(request.query_params.get("base")))
        action = request.query_params.get("action", "")[:40]
        state = await run_in_threadpool(self.painter.save, identifier, plane, picture, base, action)
        return JSONResponse(describe_state(state))

    async def step(self, request: Request) -> Response:
        """Undo or redo; answers with the painting."""
        content = await read_json(request)
        by, base = int(number(content.get("by"))), int(number(content.get("base")))
        if by not in (-1, 1):
            raise RefusedError(422, "by must be -1 or 1")
        await run_in_threadpool(self.painter.step, *plane_of(request), by, base)
        return await run_in_threadpool(self._painting, *plane_of(request))

    async def done(self, request: Request) -> Response:
        """Declare a plane painted completely, or take that back."""
        content = await read_json(request)
        done, base = content.get("done") is True, int(number(content.get("base")))
        state: State = await run_in_threadpool(self.painter.set_done, *plane_of(request), done, base)
        return JSONResponse(describe_state(state))

    def crossings(self, request: Request) -> Response:
        """What other planes say here."""
        return picture_answer(self.painter.picture_of_crossings(*plane_of(request)))

    def proposal(self, request: Request) -> Response:
        """The specialist's prediction."""
        identifier, plane = plane_of(request)
        self.painter.draft(identifier, plane)
        return picture_answer(self.painter.picture_of_proposal(identifier, plane))

    async def ask(self, request: Request) -> Response:
        """Let the generalist draw; answers with a mask of 0 and 1."""
        content = await read_json(request)
        mask, quality = await run_in_threadpool(self._ask, *plane_of(request), content)
        return picture_answer(mask.astype(np.uint8), {"X-Quality": f"{quality:.3f}"})

    def _ask(self, identifier: str, plane: Plane, content: dict[str, Any]) -> tuple[np.ndarray, float]:
        if self.painter.propose is None:
            raise RefusedError(409, f"the generalist cannot be asked: {self.painter.why_not}")
        channel = int(number(content.get("channel", 0)))
        self.painter.picture_of_scan(identifier, plane, channel)  # refuses what is not there
        window = number(content.get("level")), number(content.get("width"))
        return generalist.ask(self.painter.propose, self.painter.scan(identifier), plane, channel, window, content)

    def _painting(self, identifier: str, plane: Plane) -> Response:
        state = self.painter.draft(identifier, plane).state
        picture = self.painter.picture_of_draft(identifier, plane)
        return picture_answer(picture, {"X-State": json.dumps(describe_state(state))})


def listen(port: int) -> socket.socket:
    """A socket that listens at 127.0.0.1, on any free port for 0.

    Raises:
        InputError: if the port is taken.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":  # a server that was killed may start again at once; on Windows this would share the port
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise InputError(
            f"--port {port}: {error.strerror}; is gmabs annotate running already? Or choose another port"
        ) from error
    return listening


def serve(painter: Painter, port: int, announce: Callable[[str], None]) -> None:
    """Run until interrupted; every one-time address is announced.

    Raises:
        InputError: if the port is taken.
    """
    with listen(port) as listening:
        door = Door(listening.getsockname()[1], announce)
        announce(door.address)
        config = uvicorn.Config(make_app(painter, door), log_level="warning", access_log=False)
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how people stop it; uvicorn raises it once more
            uvicorn.Server(config).run(sockets=[listening])
