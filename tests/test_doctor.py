import hashlib
import os
import sys
import types
from collections import namedtuple

import pytest

from nnunet_gmabs import doctor
from nnunet_gmabs.cli import main
from nnunet_gmabs.commands.doctor import layout
from nnunet_gmabs.doctor import ERROR, OK, WARNING, Finding, machine, nnunet, software, weights

GIB = 2**30
Usage = namedtuple("Usage", "total used free")


def levels(findings):
    return [finding.level for finding in findings]


def only(findings):
    (finding,) = findings
    return finding


def test_a_complaint_without_a_cure_cannot_be_made():
    with pytest.raises(AssertionError):
        Finding("disk", ERROR, "full")


@pytest.mark.parametrize(("level", "code"), [(OK, 0), (WARNING, 0), (ERROR, 1)])
def test_exit_code_is_1_only_when_something_is_wrong(level, code, monkeypatch, capsys):
    finding = Finding("disk", level, "so and so", "" if level == OK else "make room")
    monkeypatch.setattr(doctor, "all_checks", lambda: [lambda: [finding]])
    assert main(["doctor"]) == code
    assert "so and so" in capsys.readouterr().out


def test_values_and_cures_stand_in_one_column():
    lines = [
        layout(Finding("disk", OK, "VALUE")),
        *layout(Finding("a longer name", ERROR, "VALUE", "CURE")).splitlines(),
    ]
    assert [line.index("VALUE") for line in lines[:2]] == [29, 29]
    assert lines[2].index("-> CURE") == 29


def test_a_python_below_the_minimum_is_wrong(monkeypatch):
    assert only(software.check_python()).level == OK
    monkeypatch.setattr(software, "MINIMUM_PYTHON", (4, 0))
    assert "4.0" in only(software.check_python()).cure


def test_missing_and_outdated_packages_name_their_installation():
    missing = software.check_requirement("no-such-package-here", ">=1.2")
    assert (missing.level, missing.cure) == (ERROR, "pip install 'no-such-package-here>=1.2'")
    outdated = software.check_requirement("numpy", ">=1000")
    assert (outdated.level, outdated.cure) == (ERROR, "pip install 'numpy>=1000'")
    assert software.check_requirement("numpy", ">=1").level == OK


def test_all_requirements_of_this_environment_are_met():
    assert set(levels(software.check_requirements())) == {OK}


def test_a_torchvision_built_for_another_torch_is_wrong(monkeypatch):
    def nms(*_):
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    broken = types.ModuleType("torchvision")
    broken.ops = types.ModuleType("torchvision.ops")
    broken.ops.nms = nms
    monkeypatch.setitem(sys.modules, "torchvision", broken)
    monkeypatch.setitem(sys.modules, "torchvision.ops", broken.ops)
    finding = only(software.check_torch())
    assert finding.level == ERROR
    assert "operator torchvision::nms does not exist" in finding.value
    assert "and more" not in finding.value


def test_a_torch_that_nnunet_excludes_is_wrong(monkeypatch):
    monkeypatch.setattr(software.metadata, "version", lambda package: "2.9.1")
    monkeypatch.setattr(software.metadata, "requires", lambda package: ["torch!=2.9.*,>=2.1.2"])
    assert "2.9.1" in only(software.check_torch()).value


def test_variables_must_name_writable_folders(nnunet_folders, monkeypatch, tmp_path):
    assert levels(nnunet.check_variables()) == [OK, OK, OK]

    monkeypatch.delenv("nnUNet_raw")
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "file"))
    raw, preprocessed, results = nnunet.check_variables()
    assert (raw.level, raw.value) == (ERROR, "not set")
    assert "export nnUNet_raw=" in raw.cure
    assert preprocessed.level == ERROR and f"mkdir -p '{tmp_path / 'nowhere'}'" in preprocessed.cure
    assert results.level == ERROR and "is a file" in results.value


def test_a_variable_must_name_the_same_folder_wherever_a_command_is_run(nnunet_folders, monkeypatch, tmp_path):
    monkeypatch.chdir(nnunet_folders["nnUNet_raw"].parent)
    monkeypatch.setenv("nnUNet_raw", nnunet_folders["nnUNet_raw"].name)
    finding = nnunet.check_variable("nnUNet_raw")
    assert finding.level == WARNING and finding.cure == f"export nnUNet_raw='{nnunet_folders['nnUNet_raw']}'"

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("nnUNet_raw", "~/nnUNet_raw")  # as the shell leaves it within quotes
    finding = nnunet.check_variable("nnUNet_raw")
    assert finding.level == ERROR and finding.cure == f"export nnUNet_raw='{tmp_path}/nnUNet_raw'"


def test_a_read_only_folder_is_wrong(nnunet_folders, monkeypatch):
    monkeypatch.setattr(
        os, "access", lambda path, mode: not mode & os.W_OK
    )  # root may write anywhere: chmod shows nothing
    assert levels(nnunet.check_variables()) == [ERROR, ERROR, ERROR]


def test_a_variable_without_our_folder_is_wrong_and_the_cure_names_the_folder(monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", "/somewhere/else")
    missing, lacking = nnunet.check_trainers()
    assert missing.level == WARNING and "/somewhere/else" in missing.value
    assert lacking.level == ERROR and lacking.cure.endswith(f"nnUNet_extTrainer={nnunet.SCANNED_FOLDER}")
    monkeypatch.delenv("nnUNet_extTrainer")
    assert levels(nnunet.check_trainers()) == [ERROR]


def stand_in_for_look_up(monkeypatch, look_up):
    module = types.ModuleType("nnunetv2.utilities.find_objects")
    module.recursive_find_trainer_class_by_name = look_up
    monkeypatch.setitem(sys.modules, "nnunetv2.utilities.find_objects", module)
    monkeypatch.setenv("nnUNet_extTrainer", str(nnunet.SCANNED_FOLDER))


def test_a_trainer_that_nnunet_cannot_import_is_wrong_and_its_cause_is_shown(monkeypatch, capsys):
    def look_up(name):
        print("Searching")
        raise ModuleNotFoundError("No module named 'blosc2'")

    stand_in_for_look_up(monkeypatch, look_up)
    finding = only(nnunet.check_trainers())
    assert finding.level == ERROR and "No module named 'blosc2'" in finding.value
    assert capsys.readouterr().out == ""


def test_somebody_elses_trainer_of_the_same_name_is_wrong(monkeypatch):
    stand_in_for_look_up(monkeypatch, lambda name: type(name, (), {"__module__": "nnunetv2.training.copied"}))
    finding = only(nnunet.check_trainers())
    assert finding.level == ERROR and "nnunetv2.training.copied" in finding.value


def test_more_processes_than_cores_is_a_warning_with_the_right_number(monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.delenv("nnUNet_def_n_proc")
    monkeypatch.delenv("nnUNet_n_proc_DA")
    _, preprocessing, loading = machine.check_cores()
    assert "8 processes" in preprocessing.value and preprocessing.cure == "export nnUNet_def_n_proc=3"
    assert "12 processes" in loading.value and loading.cure == "export nnUNet_n_proc_DA=3"

    monkeypatch.setenv("nnUNet_def_n_proc", "3")
    monkeypatch.setenv("nnUNet_n_proc_DA", "many")
    cores, loading = machine.check_cores()
    assert (cores.value, loading.level) == ("3", ERROR)


def test_a_containers_quota_limits_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(16), raising=False)
    for line, cores in {"max 100000": 16, "250000 100000": 2, "50000 100000": 1, "": 16}.items():
        monkeypatch.setattr(machine, "read_line", lambda path, line=line: line)
        assert machine.usable_cores() == cores


def test_little_memory_is_a_warning(monkeypatch):
    for available, level in {7 * GIB: WARNING, 9 * GIB: OK, None: OK}.items():
        monkeypatch.setattr(machine, "available_memory", lambda available=available: available)
        assert only(machine.check_memory()).level == level


def test_dockers_default_shared_memory_is_a_warning(monkeypatch, tmp_path):
    for total, level in {64 * 2**20: WARNING, 2 * GIB: OK}.items():
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda path, total=total: Usage(total, 0, total))
        assert only(machine.check_shared_memory(str(tmp_path))).level == level
    assert machine.check_shared_memory(str(tmp_path / "nowhere")) == []


def test_a_disk_is_judged_once_for_all_folders_on_it(nnunet_folders, monkeypatch):
    for free, level in {20 * GIB: OK, 5 * GIB: WARNING, GIB // 2: ERROR}.items():
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda path, free=free: Usage(100 * GIB, 0, free))
        finding = only(machine.check_disk())
        assert finding.level == level
        assert "nnUNet_raw, nnUNet_preprocessed, nnUNet_results" in finding.value


def test_unset_folders_have_no_disk(monkeypatch):
    for name in nnunet.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert machine.check_disk() == []


def test_gpus_are_named_and_a_driver_without_one_is_a_warning(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert only(machine.check_devices()).value.startswith("CPU only")
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert only(machine.check_devices()).level == WARNING

    gpus = [
        types.SimpleNamespace(name="Card A", total_memory=24 * GIB),
        types.SimpleNamespace(name="B", total_memory=GIB),
    ]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: gpus[i])
    assert only(machine.check_devices()).value == "Card A, 24 GiB, B, 1 GiB"


def test_the_embedded_generalist_is_there_and_no_other_is_needed(monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_gmabs_weights", str(tmp_path))
    embedded, folder = weights.check_generalists()
    assert (embedded.level, folder.level) == ("ok", "ok")
    assert folder.value.startswith(f"none of segment-anything in {tmp_path}")


def test_a_file_with_a_published_name_and_another_content_is_wrong(monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_gmabs_weights", str(tmp_path))
    (tmp_path / "sam_vit_b_01ec64.pth").write_bytes(b"half of it")
    _, wrong, folder = weights.check_generalists()
    assert wrong.level == "error" and str(tmp_path / "sam_vit_b_01ec64.pth") in wrong.value
    assert "dl.fbaipublicfiles.com" in wrong.cure
    assert folder.value.startswith("none")


def test_published_weights_are_named(monkeypatch, tmp_path):
    from nnunet_gmabs.generalist import sam_weights

    monkeypatch.setenv("nnUNet_gmabs_weights", str(tmp_path))
    (tmp_path / "mobile_sam.pt").write_bytes(b"whole")
    monkeypatch.setitem(sam_weights.SHA256, "mobile_sam.pt", hashlib.sha256(b"whole").hexdigest())
    _, folder = weights.check_generalists()
    assert folder.value.startswith("vit_t of segment-anything")
