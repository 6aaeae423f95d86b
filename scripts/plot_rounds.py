"""How good pseudo labels are, round by round, against dense labels.

    python scripts/plot_rounds.py OUTPUT_FOLDER [OUTPUT_FOLDER ...] --to rounds.png

OUTPUT_FOLDER is that of a training with `relabel: {truth: logged}` (scripts/benchmark.py: DIR/results/CELL/.../fold_0);
the Dice of the teacher that prompts, and of the pseudo labels that the student learns from, over all scans of a round,
are read from its gmabs_log.csv. A panel for each training, a colour for each class.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from pathlib import Path

import matplotlib

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.report.tables import markdown_table

matplotlib.use("Agg")
Rounds = list[tuple[int, dict[int, tuple[float, float]]]]  # after this epoch: class -> (teacher, pseudo labels)


def read_rounds(folder: Path) -> Rounds:
    """Dice of all rounds of a training.

    Raises:
        InputError: it has no log, or no round with known truth.
    """
    path = folder / "gmabs_log.csv"
    if not path.is_file():
        raise InputError(f"{path}: no such file; is this the output folder of a training, ending in fold_N?")
    rounds = []
    with open(path, newline="", encoding="utf-8") as f:
        for line in csv.DictReader(f):
            classes = [int(m[1]) for key in line if (m := re.fullmatch(r"round/true_dice/class_(\d+)", key))]
            dice = {
                k: (float(line[f"round/true_teacher_dice/class_{k}"]), float(line[f"round/true_dice/class_{k}"]))
                for k in classes
                if line[f"round/true_dice/class_{k}"]
            }
            if dice:
                rounds.append((int(line["epoch"]) + 1, dice))
    if not rounds:
        raise InputError(f"{path}: no round with known truth; set relabel.truth and give labelsTr_dense")
    return rounds


def plot(trainings: dict[str, Rounds], path: Path) -> None:
    """One panel for each training."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        1, len(trainings), figsize=(1.5 + 3.2 * len(trainings), 3.4), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, (title, rounds) in zip(panels[0], trainings.items(), strict=True):
        for number, label in enumerate(sorted(rounds[0][1])):
            epochs, values = zip(*((epoch, dice[label]) for epoch, dice in rounds if label in dice), strict=True)
            teacher, pseudo = zip(*values, strict=True)
            colour = f"C{number}"
            axes.plot(epochs, [100 * v for v in pseudo], "o-", color=colour, label=f"class {label}: pseudo labels")
            axes.plot(epochs, [100 * v for v in teacher], "o--", color=colour, mfc="w", label=f"class {label}: teacher")
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("epochs trained")
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("Dice with dense labels (%)")
    panels[0][-1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=150)


def main() -> int:
    """Draw, and print the same as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="OUTPUT_FOLDER")
    parser.add_argument("--names", nargs="+", help="titles of the panels (default: the trainers' folders)")
    parser.add_argument("--to", type=Path, required=True, metavar="PNG")
    args = parser.parse_args()
    names = args.names or [folder.resolve().parent.name.split("__")[0] for folder in args.folders]
    try:
        if len(set(names)) != len(args.folders):
            raise InputError(f"--names: {len(args.folders)} different titles are needed, not {names}")
        trainings = {name: read_rounds(folder) for name, folder in zip(names, args.folders, strict=True)}
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    plot(trainings, args.to)
    lines = [
        [
            name,
            str(epoch),
            str(label),
            f"{100 * teacher:.1f}",
            f"{100 * pseudo:.1f}",
            f"{100 * (pseudo - teacher):+.1f}",
        ]
        for name, rounds in trainings.items()
        for epoch, dice in rounds
        for label, (teacher, pseudo) in sorted(dice.items())
    ]
    print(markdown_table(["training", "after epoch", "class", "teacher", "pseudo labels", "difference"], lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
