"""Is everything in place for training here, and if not, what is the cure? The checks behind `gmabs doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

OK, WARNING, ERROR = "ok", "warning", "error"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        name: what was looked at.
        level: OK; WARNING: works, but slowly or not for everything; ERROR: training would fail.
        value: what was found.
        cure: what to do about it; empty exactly when the level is OK.
    """

    name: str
    level: str
    value: str
    cure: str = ""

    def __post_init__(self) -> None:
        """A complaint without a cure helps nobody."""
        assert (self.level == OK) == (not self.cure), self


def all_checks() -> list[Callable[[], list[Finding]]]:
    """Every check, in the order of the report: a later one may take for granted what an earlier one looks at."""
    from nnunet_gmabs.doctor import machine, nnunet, software, weights

    return [
        software.check_python,
        software.check_requirements,
        software.check_torch,
        nnunet.check_variables,
        nnunet.check_trainers,
        weights.check_generalists,
        machine.check_devices,
        machine.check_cores,
        machine.check_memory,
        machine.check_shared_memory,
        machine.check_disk,
    ]


def examine(checks: list[Callable[[], list[Finding]]] | None = None) -> Iterator[Finding]:
    """Run the checks one by one; the findings come as they are made, since some take seconds."""
    for check in all_checks() if checks is None else checks:
        yield from check()
