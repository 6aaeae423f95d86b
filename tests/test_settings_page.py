"""docs/settings.md is what the dataclasses and trainers say, and leaves none of them out."""

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pytest

from nnunet_gmabs.config import ActiveConfig, FeatureTeachingConfig, GMABSConfig, RelabelConfig, StreamsConfig
from nnunet_gmabs.settings import flatten

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_settings_page", ROOT / "scripts" / "make_settings_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page():
    return (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_the_committed_page_is_up_to_date(maker, page):
    assert page == maker.settings_page(), "run scripts/make_settings_page.py"


def test_every_trainer_of_the_package_has_a_section(page):
    files = sorted((ROOT / "nnunet_gmabs" / "trainers").glob("*.py"))
    classes = [node for file in files for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)]
    names = [node.name for node in classes if node.name.startswith("nnUNetTrainer")]
    assert len(names) > 10
    assert sorted(names) == sorted(line[5:-1] for line in page.splitlines() if line.startswith("### `nnUNetTrainer"))


def test_every_setting_has_a_row(maker, page):
    everything = {name: kind() for name, kind in maker.groups() if "." not in name}
    for name in flatten(GMABSConfig(**everything)):
        group, _, own = name.rpartition(".")
        section = page.split(f"### `{group}`" if group else "### Without a group")[1].split("\n### ")[0]
        assert f"\n| `{own}` | " in section, name


def test_ranges_are_those_that_are_checked(maker):
    assert maker.ranges(StreamsConfig) == {
        "batch_share": "(0, 2]",
        "labelled_share": "(0, 1]",
        "unlabelled_from": "[0, 1]",
    }
    assert maker.ranges(RelabelConfig)["max_unlabelled"] == ">= 0"
    assert maker.ranges(FeatureTeachingConfig)["dropout"] == "[0, 1)"
    assert maker.ranges(GMABSConfig)["seed"] == "[0, 2147483647]"
    assert maker.ranges(GMABSConfig)["initial_lr"] == "> 0" and "inference_network" not in maker.ranges(GMABSConfig)


def test_the_string_below_a_field_is_its_explanation(maker):
    texts = maker.field_docstrings(ActiveConfig)
    assert texts["scans_per_round"] == "Paper: 2." and "waits" not in texts["strategy"]
    assert texts["expert"].endswith("labelsTr_dense answers at once, for this training alone.")
    assert maker.field_docstrings(GMABSConfig)["streams"] == ""


def test_differences_name_what_is_switched_and_what_is_set(maker):
    @dataclass(frozen=True)
    class Inner:
        a: int = 1

    @dataclass(frozen=True)
    class Outer:
        x: str = "left"
        inner: Inner | None = None

    Outer.__annotations__ = {"x": str, "inner": Inner | None}
    assert maker.differences(Outer(), Outer()) == []
    assert maker.differences(Outer("right", Inner(2)), Outer()) == ["`x: right`", "`inner` switched on", "`inner.a: 2`"]
    assert maker.differences(Outer(inner=Inner(2)), Outer(inner=Inner())) == ["`inner.a: 2`"]
    assert maker.differences(Outer(), Outer(inner=Inner())) == ["`inner` switched off"]
