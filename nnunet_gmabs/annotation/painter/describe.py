"""What the page is told about the round and about an open scan, as JSON."""

from __future__ import annotations

from typing import Any

from nnunet_gmabs.annotation.exchange import class_names
from nnunet_gmabs.annotation.painter.drafts import State
from nnunet_gmabs.annotation.painter.painter import NEIGHBOURS, Painter
from nnunet_gmabs.annotation.planes import Plane
from nnunet_gmabs.annotation.raw_folder import RawFolder

# Far apart from each other and from grey, also for eyes that take red for green; more classes take them again.
COLOURS = ("#3fb6ff", "#ffb000", "#ff5d8f", "#2fd8a0", "#b08cff", "#f2e94e", "#ff7a45", "#7fe3ff", "#d3a27f")


def describe_round(painter: Painter) -> dict[str, Any]:
    """Data set, classes and the scans asked for, each with its state."""
    request = painter.request
    return {
        "dataset": painter.raw.folder.name,
        "round": request.round,
        "created": request.created,
        "strategy": request.strategy,
        "annotator": painter.annotator,
        "classes": classes(painter.raw),
        "generalist": {"available": painter.propose is not None, "why_not": painter.why_not},
        "scans": [_describe_requested(painter, scan.identifier) for scan in request.scans],
    }


def describe_scan(painter: Painter, identifier: str) -> dict[str, Any]:
    """Channels and planes of an open scan, with all that is needed to show them."""
    scan, requested = painter.scan(identifier), painter.requested(identifier)
    return {
        "identifier": identifier,
        "reason": requested.reason,
        "has_direction": scan.has_direction,
        "has_proposal": requested.proposal is not None,
        "seconds": painter.seconds(identifier),
        "neighbours": NEIGHBOURS,
        "channels": [
            {"name": c.name, "low": c.low, "step": c.step, "level": c.level, "width": c.width, "is_ct": c.is_ct}
            for c in scan.channels
        ],
        "planes": [
            _describe_plane(painter, identifier, p.plane) | {"reason": p.reason} | describe_state(state)
            for p, state in zip(requested.planes, painter.states(identifier), strict=True)
        ],
    }


def describe_state(state: State) -> dict[str, Any]:
    """Where a plane stands, for the page."""
    return {
        "version": state.version,
        "can_undo": state.version > state.first,
        "can_redo": state.version < state.last,
        "done": state.done,
        "proposal_accepted": state.proposal_accepted,
    }


def classes(raw: RawFolder) -> list[dict[str, Any]]:
    """Foreground values with name (class_names) and colour."""
    return [
        {"value": value, "name": name, "colour": COLOURS[i % len(COLOURS)]}
        for i, (value, name) in enumerate(class_names(raw).items())
    ]


def _describe_requested(painter: Painter, identifier: str) -> dict[str, Any]:
    requested, states = painter.requested(identifier), painter.states(identifier)
    state, who, seconds_left = painter.state_of(identifier)
    answer = painter.answer(identifier) if state == "finished" else None
    done = len(answer.planes_done) if answer else sum(s.done for s in states)
    return {
        "identifier": identifier,
        "state": state,
        "by": who,
        "minutes_left": round(seconds_left / 60),
        "planes": len(states),
        "planes_done": done,
        "planes_begun": sum(s.version > 0 for s in states),
        "seconds": painter.seconds(identifier),
        "reason": requested.reason,
        "score": requested.score,
    }


def _describe_plane(painter: Painter, identifier: str, plane: Plane) -> dict[str, Any]:
    scan, (axis, index) = painter.scan(identifier), plane
    view = scan.views[axis]
    height_mm, width_mm = scan.pixel_mm(axis)
    lines = [(p.plane, view.line_of(p.plane, scan.shape)) for p in painter.requested(identifier).planes]
    return {
        "axis": axis,
        "index": index,
        "count": scan.shape[axis],
        "name": view.name + (" (oblique)" if view.oblique else ""),
        "rows": scan.shape[view.row_axis],
        "columns": scan.shape[view.column_axis],
        "pixel_mm": [height_mm, width_mm],
        "thickness_mm": scan.spacing_mm[axis],
        "edges": list(view.edges) if scan.has_direction else ["", "", "", ""],
        "forward": view.forward if scan.has_direction else "",
        "lines": [{"axis": other[0], "index": other[1]} | line for other, line in lines if line],
    }
