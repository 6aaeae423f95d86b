"""Small tables as text: aligned for a terminal, Markdown for a README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nnunet_gmabs.report.dice import class_means, mean, scan_means


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned by spaces, the first to the left, the others to the right, a rule below the header.

    >>> print(plain_table(["scan", "Dice"], [["heart_1", "80.1"], ["heart_20", "9.3"]]))
    scan      Dice
    --------------
    heart_1   80.1
    heart_20   9.3
    """
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in [header, *rows]
    ]
    return "\n".join([lines[0].rstrip(), "-" * len(lines[0]), *(line.rstrip() for line in lines[1:])])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as Markdown.

    >>> print(markdown_table(["scan", "Dice"], [["heart_1", "80.1"]]))
    | scan | Dice |
    |---|---:|
    | heart_1 | 80.1 |
    """
    rule = "|" + "|".join(["---"] + ["---:"] * (len(header) - 1)) + "|"
    return "\n".join(["| " + " | ".join(header) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)])


def percent(value: float) -> str:
    """A Dice value in per cent with one decimal; a dash for nan.

    >>> percent(0.8012), percent(float("nan"))
    ('80.1', '-')
    """
    return "-" if value != value else f"{100 * value:.1f}"


def dice_table(
    scores: Mapping[str, Mapping[int, float]], names: Mapping[int, str] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Header and rows for one set of predictions: one row a scan, the last row the means; Dice in per cent.

    Args:
        scores: from dice_per_class.
        names: what to call the classes; default: their numbers.
    """
    labels = list(next(iter(scores.values()), {}))
    by_scan, by_class = scan_means(scores), class_means(scores)
    header = ["scan", *((names or {}).get(label, f"class {label}") for label in labels), "mean"]
    rows = [
        [identifier, *(percent(by_label[label]) for label in labels), percent(by_scan[identifier])]
        for identifier, by_label in scores.items()
    ]
    return header, [*rows, ["mean", *(percent(by_class[label]) for label in labels), percent(mean(by_scan.values()))]]
