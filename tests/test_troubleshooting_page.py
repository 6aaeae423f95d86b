"""The messages that docs/troubleshooting.md quotes are still those of the sources, and its links lead somewhere."""

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### `(.+)`$", PAGE, flags=re.MULTILINE)
GAP = "\0"  # what a source fills in


def texts(file):
    """All strings of a source file, parts that are filled in as GAP."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@cache
def sources():
    ours = list((ROOT / "nnunet_gmabs").rglob("*.py"))
    packages = [Path(importlib.util.find_spec(name).origin).parent for name in ("nnunetv2", "batchgenerators")]
    theirs = [
        *packages[0].glob("run/run_training.py"),
        *packages[0].glob("utilities/find_objects.py"),
        *packages[0].glob("inference/predict_from_raw_data.py"),
        *packages[1].glob("dataloading/nondet_multi_threaded_augmenter.py"),
    ]
    return [text for file in ours + theirs for text in texts(file)]


def says(message, text):
    """Whether a source's string can give the quoted message; ... in the quotation stands for anything."""
    parts = [part.strip() for part in message.removesuffix("...").split("...")]
    return re.search(".*".join(map(re.escape, parts)), text, flags=re.DOTALL) is not None


def found(message):
    return any(says(message, text) for text in sources())


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_in_the_sources(message):
    whole = message.replace("Starting a new training...", "Starting a new training")  # nnU-Net's own dots
    assert found(whole), f"{message!r} is in no source: quote the message as it is now, or take the entry out"


def test_a_message_that_no_source_has_would_be_noticed():
    assert not found("no scan has a label; draw at least two planes in one scan")
    assert not says("a ... b", "b then a") and says("a ... b", f"x a {GAP} b y")


def test_at_least_25_messages_are_quoted_and_none_twice():
    assert len(QUOTED) >= 25 and len(set(QUOTED)) == len(QUOTED)


def anchors(file):
    """The names under which GitHub finds a page's headings."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", sorted((ROOT / "docs").glob("*.md")), ids=lambda file: file.name)
def test_links_between_pages_lead_somewhere(file):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", file.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        page = (file.parent / name).resolve() if name else file
        assert page.exists(), target
        assert not anchor or anchor in anchors(page), target
