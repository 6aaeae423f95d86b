"""Settings: where they come from, what is refused, and what a resumed training may change."""

import json
import math
from dataclasses import FrozenInstanceError, asdict, replace
from unittest import mock

import pytest

from nnunet_gmabs.config import ConsistencyConfig, GMABSConfig, StreamsConfig, SupervisionConfig, TeacherConfig
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.presets import GM_ABS, MEAN_TEACHER, MEAN_TEACHER_PAPER, SPARSE
from nnunet_gmabs.settings import (
    DATASET_FILE,
    ENVIRONMENT_VARIABLE,
    flatten,
    override,
    refuse_other_settings,
    resolve,
)


@pytest.fixture(autouse=True)
def no_file_of_the_user(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


def from_file(tmp_path, text, base=MEAN_TEACHER, name=DATASET_FILE):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return resolve(base, tmp_path)


def refused(tmp_path, text, base=MEAN_TEACHER):
    with pytest.raises(InputError) as error:
        from_file(tmp_path, text, base)
    assert str(error.value).startswith(str(tmp_path / DATASET_FILE))
    return str(error.value)


# ---- where settings come from


def test_without_files_the_trainers_own_settings_hold(tmp_path):
    for folder in (tmp_path, None, tmp_path / "not there"):
        assert resolve(MEAN_TEACHER, folder) == (MEAN_TEACHER, [])


def test_the_data_sets_file_overrides_by_name_and_is_noted(tmp_path):
    config, notes = from_file(tmp_path, "num_epochs: 7\nconsistency:\n  weight: 0.25\n  form: mse\n")
    consistency = replace(MEAN_TEACHER.consistency, weight=0.25, form="mse")
    assert config == replace(MEAN_TEACHER, num_epochs=7, consistency=consistency)
    assert notes == [f"settings read from {tmp_path / DATASET_FILE}"]


def test_the_file_of_the_environment_comes_last(tmp_path, monkeypatch):
    user = tmp_path / "mine.json"
    user.write_text(json.dumps({"num_epochs": 9, "teacher": {"max_decay": 0.5}}))
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(user))
    config, notes = from_file(tmp_path, "num_epochs: 7\nsave_every: 3\nteacher:\n  max_decay: 0.25\n")
    assert (config.num_epochs, config.save_every, config.teacher.max_decay) == (9, 3, 0.5)
    assert notes == [f"settings read from {tmp_path / DATASET_FILE}", f"settings read from {user}"]


@pytest.mark.parametrize("name", ["mine.yaml", "mine.yml", "mine.json", "mine"])
def test_yaml_and_json_say_the_same(tmp_path, monkeypatch, name):
    values = {"seed": 4, "streams": {"labelled_share": 0.25}, "inference_network": "student"}
    user = tmp_path / name
    user.write_text(json.dumps(values))  # JSON is YAML, too
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(user))
    streams = replace(MEAN_TEACHER.streams, labelled_share=0.25)
    expected = replace(MEAN_TEACHER, seed=4, streams=streams, inference_network="student")
    assert resolve(MEAN_TEACHER, None)[0] == expected


def test_an_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "")
    assert resolve(MEAN_TEACHER, None) == (MEAN_TEACHER, [])


@pytest.mark.parametrize("name", ["mine.yaml", "mine.json"])
@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_file_changes_nothing(tmp_path, monkeypatch, name, text):
    (tmp_path / name).write_text(text)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / name))
    assert resolve(MEAN_TEACHER, None)[0] == MEAN_TEACHER


def test_a_missing_file_is_named_with_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match=rf"none.yaml: cannot be read.*{ENVIRONMENT_VARIABLE}"):
        resolve(MEAN_TEACHER, None)


def test_a_data_sets_file_that_cannot_be_read_is_not_blamed_on_the_variable(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("num_epochs: 9")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "mine.yaml"))
    file = tmp_path / DATASET_FILE
    file.touch()
    with mock.patch.object(type(file), "read_text", side_effect=PermissionError(13, "Permission denied")):
        with pytest.raises(InputError) as error:
            resolve(MEAN_TEACHER, tmp_path)
    assert str(error.value) == f"{file}: cannot be read (Permission denied); make it readable, or remove it"


@pytest.mark.parametrize("text", ["num_epochs: [7", "\ta: 1", "{"])
def test_a_file_that_is_neither_yaml_nor_json_is_named(tmp_path, text):
    assert "neither YAML nor JSON" in refused(tmp_path, text)


def test_a_binary_file_is_named(tmp_path):
    (tmp_path / DATASET_FILE).write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="neither YAML nor JSON"):
        resolve(MEAN_TEACHER, tmp_path)


@pytest.mark.parametrize("text", ["- num_epochs", "7", "num_epochs"])
def test_a_file_without_names_is_refused(tmp_path, text):
    assert "one 'name: value' a line" in refused(tmp_path, text)


# ---- what is refused


@pytest.mark.parametrize(
    ("text", "wrong", "nearest"),
    [
        ("num_epoch: 7", "num_epoch", "num_epochs"),
        ("lr: 0.1", "lr", "initial_lr"),
        ("consistancy: null", "consistancy", "consistency"),
        ("consistency:\n  wieght: 1.0", "consistency.wieght", "consistency.weight"),
        ("labelled_share: 0.5", "labelled_share", "streams.labelled_share"),
        ("streams:\n  noise_sd: 0.5", "streams.noise_sd", "consistency.noise_sd"),
        ("7: 7", "7", ""),
    ],
)
def test_an_unknown_setting_is_named_with_the_nearest_valid_one(tmp_path, text, wrong, nearest):
    message = refused(tmp_path, text)
    assert f"unknown setting {wrong!r}" in message and f"the nearest valid one is '{nearest}" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_epochs: 7.0", "num_epochs is 7.0 (float); it must be int"),
        ("num_epochs: true", "num_epochs is True (bool); it must be int"),
        ("num_epochs: seven", "num_epochs is 'seven' (str); it must be int"),
        ("num_epochs: null", "num_epochs is None (NoneType); it must be int"),
        ("initial_lr: true", "initial_lr is True (bool); it must be float"),
        ("initial_lr: '0.1'", "initial_lr is '0.1' (str); it must be float"),
        ("initial_lr: [0.1]", "initial_lr is [0.1] (list); it must be float"),
        ("consistency:\n  weight: much", "consistency.weight is 'much' (str); it must be float"),
        ("consistency: 3", "consistency is 3 (int); it must be a group of settings, null"),
        ("streams: null", "streams is None (NoneType); it must be a group of settings"),
        ("num_epochs:\n  many: 1", "num_epochs is {'many': 1} (dict); it must be int"),
        ("inference_network: both", "inference_network is 'both'; valid are 'teacher', 'student'"),
        ("consistency:\n  form: [mse]", "consistency.form is ['mse']; valid are 'confident', 'mse'"),
    ],
)
def test_a_wrong_type_is_named(tmp_path, text, message):
    assert message in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_epochs: 0", "num_epochs is 0, outside [1, inf]"),
        ("seed: -1", "seed is -1, outside [0, 2147483647]"),
        ("initial_lr: 0", "initial_lr is 0.0, outside (0, inf]"),
        ("initial_lr: .nan", "initial_lr is nan"),
        ("initial_lr: .inf", "initial_lr is inf"),
        ("streams:\n  labelled_share: 0", "streams.labelled_share is 0.0, outside (0, 1]"),
        ("streams:\n  labelled_share: 1.01", "streams.labelled_share is 1.01, outside (0, 1]"),
        ("consistency:\n  ramp_start: 0.7", "consistency.ramp_start is 0.7, after ramp_end, 0.6"),
        ("consistency:\n  confidence: -0.1", "consistency.confidence is -0.1, outside [0, 1]"),
        ("consistency:\n  mix_side: 1", "consistency.mix_side is 1.0, outside [0, 1)"),
        ("consistency:\n  mix_side: 0.5\n  form: mse", "consistency.mix_side is 0.5, which needs form: confident"),
        ("supervision:\n  dice_weight: 0\n  cross_entropy_weight: 0", "supervision.dice_weight and"),
        ("noise_tolerant:\n  reachable_prob: 1", "noise_tolerant.reachable_prob is 1.0, outside (0, 1)"),
        ("noise_tolerant:\n  reachable_prob: 0", "noise_tolerant.reachable_prob is 0.0, outside (0, 1)"),
        ("mutual:\n  feature:\n    dropout: 1", "mutual.feature.dropout is 1.0, outside [0, 1)"),
    ],
)
def test_a_value_out_of_range_is_named(tmp_path, text, message):
    assert message in refused(tmp_path, text)


@pytest.mark.parametrize("station", [StreamsConfig, SupervisionConfig, TeacherConfig, ConsistencyConfig, GMABSConfig])
def test_every_number_has_a_range(station):
    for name, value in asdict(station()).items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            for wrong in (-1, math.nan, math.inf):
                with pytest.raises(ValueError, match=f"^{name} is {wrong}"):
                    replace(station(), **{name: wrong})


def test_settings_do_not_change_after_they_are_made():
    with pytest.raises(FrozenInstanceError):
        SPARSE.num_epochs = 1


# ---- what is accepted


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1.0), ("0.5", 0.5), ("1e-3", 0.001), ("2E-4", 0.0002), ("1.0e-3", 0.001), ("1.5e0", 1.5)]
)
def test_whole_numbers_and_exponents_are_numbers_where_a_float_is_asked_for(tmp_path, text, value):
    config, _ = from_file(tmp_path, f"initial_lr: {text}")
    assert config.initial_lr == value and type(config.initial_lr) is float


def test_null_switches_a_station_off(tmp_path):
    config, _ = from_file(tmp_path, "consistency: null\nteacher:")
    assert config.consistency is None and config.teacher is None


def test_settings_of_a_station_that_a_trainer_has_not_are_noted_and_have_no_effect(tmp_path):
    config, notes = from_file(tmp_path, "consistency:\n  weight: 3.0\nnum_epochs: 5", base=SPARSE)
    assert config == replace(SPARSE, num_epochs=5)
    assert [note for note in notes if "consistency is switched off in this trainer" in note]


def test_settings_of_a_station_that_a_trainer_has_not_are_checked_all_the_same(tmp_path):
    assert "consistency.wieght" in refused(tmp_path, "consistency:\n  wieght: 3.0", base=SPARSE)
    assert "consistency.weight is -1.0" in refused(tmp_path, "consistency:\n  weight: -1", base=SPARSE)


def test_settings_left_out_keep_the_trainers_own_not_the_general_defaults(tmp_path):
    config, _ = from_file(tmp_path, "supervision:\n  cross_entropy_weight: 2.0", base=MEAN_TEACHER_PAPER)
    assert config.supervision == replace(MEAN_TEACHER_PAPER.supervision, cross_entropy_weight=2.0)
    assert config.supervision.dice_weight == 0.0


def test_override_leaves_its_input_alone():
    before = asdict(MEAN_TEACHER)
    override(MEAN_TEACHER, {"teacher": {"max_decay": 0.5}}, "test", [])
    assert asdict(MEAN_TEACHER) == before


def test_the_papers_preset_says_what_the_paper_says():
    paper = MEAN_TEACHER_PAPER
    assert (paper.supervision.dice_weight, paper.supervision.cross_entropy_average) == (0.0, "samples")
    assert paper.supervision.class_balance == 0.0
    consistency = paper.consistency
    assert (consistency.form, consistency.weight) == ("mse", 0.1)
    assert (consistency.ramp_start, consistency.ramp_end) == (0.0, 0.6)
    assert (consistency.noise_sd, consistency.noise_limit, consistency.log_gamma_limit) == (0.1, 0.2, 0.3)
    assert paper.supervision.padding == "unknown"  # the mean over samples would take padding for a labelled one
    assert paper.teacher.max_decay == 0.99 and paper.streams == StreamsConfig(batch_share=1.0, labelled_share=0.5)


def test_flat_names_are_dotted_and_stations_switched_off_are_none():
    flat = flatten(SPARSE)
    assert flat["num_epochs"] == 1000 and flat["streams.labelled_share"] == 1.0 and flat["consistency"] is None
    assert flatten(asdict(SPARSE)) == flat
    assert "consistency.weight" in flatten(MEAN_TEACHER) and "consistency" not in flatten(MEAN_TEACHER)


# ---- resuming


def resume(new, old=MEAN_TEACHER):
    return refuse_other_settings(json.loads(json.dumps(asdict(old))), new, "checkpoint_latest.pth", old)


def resume_message(new, old=MEAN_TEACHER):
    with pytest.raises(InputError) as error:
        resume(new, old)
    return str(error.value)


def test_the_same_settings_resume():
    resume(MEAN_TEACHER)
    resume(SPARSE, SPARSE)


def test_more_epochs_and_another_save_every_resume():
    resume(replace(MEAN_TEACHER, num_epochs=1001, save_every=1))


def test_what_an_error_on_the_gpu_asks_to_lower_may_be_lowered():
    smaller = replace(GM_ABS, generalist=replace(GM_ABS.generalist, slices_at_once=1))
    assert resume(smaller, GM_ABS) == []


def test_fewer_epochs_are_refused():
    message = resume_message(replace(MEAN_TEACHER, num_epochs=999))
    assert "num_epochs: 1000 -> 999 (may only grow)" in message


def test_every_differing_setting_is_named_with_both_values_and_no_other():
    new = replace(MEAN_TEACHER, seed=3, num_epochs=2000, teacher=TeacherConfig(max_decay=0.5))
    lines = resume_message(new).splitlines()
    assert lines[0].startswith("checkpoint_latest.pth: was trained with other settings")
    assert lines[1:3] == ["  seed: 0 -> 3", "  teacher.max_decay: 0.99 -> 0.5"] and len(lines) == 4
    assert "--c" in lines[-1]


def test_a_station_switched_off_or_on_is_named():
    message = resume_message(replace(MEAN_TEACHER, teacher=None))
    assert "  teacher: 'not there' -> None" in message and "  teacher.max_decay: 0.99 -> 'not there'" in message


def of_an_older_version(config):
    """As a version stored them that had no consistency.confidence, and no streams."""
    old = asdict(config)
    del old["consistency"]["confidence"], old["streams"]
    return old


def test_settings_newer_than_the_checkpoint_resume_at_the_trainers_own_values_and_are_returned():
    newer = refuse_other_settings(of_an_older_version(MEAN_TEACHER), MEAN_TEACHER, "latest.pth", MEAN_TEACHER)
    assert newer == [
        "consistency.confidence",
        "streams.batch_share",
        "streams.labelled_share",
        "streams.unlabelled_from",
    ]
    assert resume(MEAN_TEACHER) == []


def test_a_newer_setting_is_refused_at_another_value_than_the_trainers_own():
    streams = replace(MEAN_TEACHER.streams, labelled_share=0.5)
    changed = replace(MEAN_TEACHER, streams=streams, consistency=replace(MEAN_TEACHER.consistency, confidence=0.9))
    with pytest.raises(InputError) as error:
        refuse_other_settings(of_an_older_version(MEAN_TEACHER), changed, "latest.pth", MEAN_TEACHER)
    lines = str(error.value).splitlines()
    assert lines[1:-1] == [
        "  consistency.confidence: 'not there' -> 0.9",
        "  streams.labelled_share: 'not there' -> 0.5",
    ]


def test_a_group_that_the_checkpoint_had_switched_off_is_not_newer():
    old = asdict(MEAN_TEACHER) | {"consistency": None}
    with pytest.raises(InputError, match="consistency.confidence: 'not there' -> 0.8"):
        refuse_other_settings(old, MEAN_TEACHER, "checkpoint_latest.pth", MEAN_TEACHER)


def test_a_setting_that_is_no_more_is_named():
    with pytest.raises(InputError, match="  extra: 1 -> 'not there'"):
        refuse_other_settings(asdict(MEAN_TEACHER) | {"extra": 1}, MEAN_TEACHER, "latest.pth", MEAN_TEACHER)
