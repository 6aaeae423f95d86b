"""Requests and answers of the painter in bytes and JSON; what cannot be understood is refused with its reason."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from nnunet_gmabs.annotation.painter.refused import RefusedError
from nnunet_gmabs.annotation.planes import Plane

MAX_JSON = 100_000


def plane_of(request: Request) -> tuple[str, Plane]:
    """Scan and plane that an address names."""
    axis, index = request.path_params["axis"], request.path_params["index"]
    if axis > 2:
        raise RefusedError(404, f"axis {axis}: a scan has axes 0, 1 and 2")
    return request.path_params["identifier"], (axis, index)


async def read_body(request: Request, limit: int) -> bytes:
    """The body; never more than limit bytes are kept."""
    body = b""
    try:
        async for block in request.stream():
            body += block
            if len(body) > limit:
                raise RefusedError(422, f"more than {limit} bytes")
    except ClientDisconnect as error:  # the page went away in the middle; it keeps the stroke
        raise RefusedError(422, "cut off") from error
    return body


async def read_json(request: Request) -> dict[str, Any]:
    """A JSON object; an empty body is an empty one."""
    try:
        content = json.loads(await read_body(request, MAX_JSON) or b"{}")
    except ValueError as error:
        raise RefusedError(422, "not JSON") from error
    if not isinstance(content, dict):
        raise RefusedError(422, "not a JSON object")
    return content


async def read_picture(request: Request, shape: tuple[int, int]) -> np.ndarray:
    """A picture of labels, (rows, columns) uint8."""
    rows, columns = shape
    body = await read_body(request, rows * columns)
    if len(body) != rows * columns:
        raise RefusedError(422, f"{len(body)} bytes for a picture of {rows} x {columns}")
    return np.frombuffer(body, np.uint8).reshape(shape)


def number(value: object) -> float:
    """A finite number of usable size."""
    try:
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise RefusedError(422, f"{value!r} is no number") from error
    if not abs(result) < 1e9:
        raise RefusedError(422, f"{value!r} is no usable number")
    return result


def picture_answer(picture: np.ndarray, headers: dict[str, str] | None = None) -> Response:
    """A picture as raw bytes."""
    return Response(picture.tobytes(), media_type="application/octet-stream", headers=headers)


def refusal(request: Request, error: Exception) -> Response:
    """A RefusedError as an answer; anything else is our failure."""
    return JSONResponse({"error": str(error)}, error.status if isinstance(error, RefusedError) else 500)
