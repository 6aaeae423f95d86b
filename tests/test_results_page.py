"""The tables of docs/results.md are those of the measured trainings that come along."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def maker(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import make_results_page

    return make_results_page


def test_the_committed_tables_are_up_to_date(maker):
    page = maker.PAGE.read_text(encoding="utf-8")
    blocks = {match[1] for match in maker.BLOCK.finditer(page)}
    assert blocks == {path.stem for path in (ROOT / "docs" / "measured").glob("*.jsonl")}
    assert maker.results_page(page) == page, "run scripts/make_results_page.py"
    short = maker.README.read_text(encoding="utf-8")
    assert {match[1] for match in maker.BLOCK.finditer(short)} == set(maker.SHORT_TABLES)
    assert maker.readme(short) == short, "run scripts/make_results_page.py"


def test_the_short_table_says_what_counts_and_what_does_for_one_seed(maker, monkeypatch):
    grid, planes = maker.SHORT_TABLES["planes"]["hippocampus, 20 scans"]
    verdicts = {"Sparse": "yes", "MeanTeacher": "one seed", "GMABS": "no", "GMABSMutual": ""}

    def difference(_, better, worse):
        row = better.removesuffix(f", {planes}")
        assert worse == f"{maker.CONTROL}, {planes}"
        return "3 x 60", "+1.0 (+0.5 to +1.5)", verdicts.get(row, "no")

    monkeypatch.setattr(maker, "difference", difference)
    header, _, control, default, *rows = maker.short_table({"hippocampus": (grid, planes)}).splitlines()
    assert header == "|  | hippocampus |" and default.startswith("| nnU-Net's default, which mirrors | +1.0 (")
    assert control.startswith("| control: Dice in % (seeds) | 7")
    assert rows[:3] == [
        "| `Sparse` | **+1.0 (+0.5 to +1.5)** |",
        "| `MeanTeacher` | *+1.0 (+0.5 to +1.5)* |",
        "| `GMABS` | +1.0 (+0.5 to +1.5) |",
    ]
    assert rows[-1] == "| the control on all scans, drawn densely | +1.0 (+0.5 to +1.5) |"
    assert not any("SparseSynthetic" in row for row in rows), "planes are not pasted"
    assert not any("GMABSMutual" in row for row in rows), "not trained in any column"


def test_what_stands_around_the_tables_stays(maker):
    name = min((ROOT / "docs" / "measured").glob("*.jsonl")).stem
    text = f"before\n<!-- {name} -->\nold\n<!-- end of {name} -->\nafter <!-- other -->\n"
    made = maker.results_page(text)
    assert made.startswith(f"before\n<!-- {name} -->\n\n**") and "old" not in made
    assert made.endswith(f"|\n\n<!-- end of {name} -->\nafter <!-- other -->\n")
