"""Figures as data that a page can carry within itself."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_gmabs.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_START = b"\x89PNG\r\n\x1a\n"


def as_svg(figure: Figure) -> str:
    """A data address that holds the figure as lines and letters' outlines."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _address("image/svg+xml", buffer.getvalue())


def as_png(figure: Figure, dpi: int = 110) -> str:
    """A data address that holds the figure as pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return _address("image/png", buffer.getvalue())


def png_file(path: Path) -> str:
    """A data address that holds a PNG as it is.

    Raises:
        InputError: if the file is no whole PNG.
    """
    content = path.read_bytes()
    if not content.startswith(PNG_START) or b"IEND" not in content[-12:]:
        raise InputError(f"{path}: no PNG, or one that is cut off; it is left out")
    return _address("image/png", content)


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
