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


def test_what_stands_around_the_tables_stays(maker):
    name = min((ROOT / "docs" / "measured").glob("*.jsonl")).stem
    text = f"before\n<!-- {name} -->\nold\n<!-- end of {name} -->\nafter <!-- other -->\n"
    made = maker.results_page(text)
    assert made.startswith(f"before\n<!-- {name} -->\n\n| claim |") and "old" not in made
    assert made.endswith(f"|\n\n<!-- end of {name} -->\nafter <!-- other -->\n")
