"""The machine: devices, cores, memory, shared memory and disk, measured against what nnU-Net will ask for."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

from nnunet_gmabs.doctor import ERROR, OK, WARNING, Finding
from nnunet_gmabs.doctor.nnunet import VARIABLES

GIB = 2**30
# Processes that nnU-Net starts where the variable is not set (nnunetv2.configuration), and for what.
DEFAULT_PROCESSES = {
    "nnUNet_def_n_proc": (8, "preprocessing and validation"),
    "nnUNet_n_proc_DA": (12, "data loading"),  # never more than os.cpu_count()
}
# Ours, from use: below these a default training of a middling data set got into trouble.
MEMORY_LOW = 8 * GIB
SHARED_MEMORY_LOW = 1 * GIB  # docker's default is 64 MiB; a batch of 3D patches and its copies pass through it
DISK_LOW, DISK_EMPTY = 10 * GIB, 1 * GIB


def check_devices() -> list[Finding]:
    """Every GPU by name; without one the CPU, with a warning where a driver says that there should be one."""
    try:
        import torch
    except Exception:  # reported by check_torch
        return [Finding("devices", WARNING, "unknown: torch cannot be imported", "repair torch first, see above")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about old drivers at length; said below in one line
        gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    if gpus:
        return [Finding("devices", OK, ", ".join(f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB" for gpu in gpus))]
    if torch.backends.mps.is_available():
        return [
            Finding(
                "devices",
                OK,
                "Apple GPU: nnUNetv2_train ... -device mps (not tested; where an operator "
                "is missing, export PYTORCH_ENABLE_MPS_FALLBACK=1)",
            )
        ]
    if shutil.which("nvidia-smi"):
        cure = "compare nvidia-smi's CUDA version with torch's, and update the older one"
        return [
            Finding("devices", WARNING, f"NVIDIA's driver is here, but torch {torch.__version__} sees no GPU", cure)
        ]
    return [Finding("devices", OK, "CPU only: gmabs prepare --cpu makes small plans; nnUNetv2_train ... -device cpu")]


def check_cores() -> list[Finding]:
    """Cores that may be used, and whether nnU-Net would start more processes than that."""
    cores = usable_cores()
    findings = [Finding("cores", OK, str(cores))]
    for name, (default, purpose) in DEFAULT_PROCESSES.items():
        value = os.environ.get(name)
        if value is not None and not value.isdecimal():
            findings.append(Finding(name, ERROR, f"{value!r} is no number", f"export {name}={cores}"))
            continue
        processes = min(default, os.cpu_count() or 1) if name == "nnUNet_n_proc_DA" else default
        processes = processes if value is None else int(value)
        if processes > cores:
            origin = "by default" if value is None else "as it is set"
            text = f"{origin} nnU-Net starts {processes} processes for {purpose} on {cores} cores"
            findings.append(Finding(name, WARNING, text, f"export {name}={cores}"))
    return findings


def usable_cores() -> int:
    """Cores that this process may use: by affinity, and by its container's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = read_line("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal():
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def check_memory() -> list[Finding]:
    """Memory that programs could still take."""
    free = available_memory()
    if free is None:
        return [Finding("memory", OK, "unknown on this system")]
    value = f"{free / GIB:.1f} GiB available"
    if free < MEMORY_LOW:
        cure = "small plans (gmabs prepare --cpu) and few processes: export nnUNet_def_n_proc=1 nnUNet_n_proc_DA=1"
        return [Finding("memory", WARNING, value, cure)]
    return [Finding("memory", OK, value)]


def available_memory() -> int | None:
    """Bytes that are available, by the system and by the container's limit; None where neither can be read."""
    limits = []
    if Path("/proc/meminfo").exists():
        entries = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        limits.append(1024 * int(entries["MemAvailable"].split()[0]))
    limit, used = read_line("/sys/fs/cgroup/memory.max"), read_line("/sys/fs/cgroup/memory.current")
    if limit.isdecimal() and used.isdecimal():
        limits.append(max(0, int(limit) - int(used)))
    return min(limits, default=None)


def check_shared_memory(folder: str = "/dev/shm") -> list[Finding]:
    """Shared memory, through which data workers hand over their batches; no finding where there is no such folder."""
    if not os.path.isdir(folder):
        return []
    size = shutil.disk_usage(folder).total
    value = f"{size / GIB:.2f} GiB"
    if size < SHARED_MEMORY_LOW:
        cure = "start the container with --ipc=host or --shm-size=8g, or train without workers: nnUNet_n_proc_DA=0"
        return [Finding(folder, WARNING, f"{value}: data workers may die with a bus error", cure)]
    return [Finding(folder, OK, value)]


def check_disk() -> list[Finding]:
    """Free space where nnU-Net's folders lie, once for each file system."""
    folders: dict[int, list[str]] = {}
    for name in VARIABLES:
        if os.path.isdir(os.environ.get(name, "")):
            folders.setdefault(os.stat(os.environ[name]).st_dev, []).append(name)
    return [disk_finding(names, shutil.disk_usage(os.environ[names[0]]).free) for names in folders.values()]


def disk_finding(names: list[str], free: int) -> Finding:
    """Judge the free bytes of the file system that holds the folders of these variables."""
    value = f"{free / GIB:.1f} GiB free for {', '.join(names)}"
    if free >= DISK_LOW:
        return Finding("disk", OK, value)
    cure = "make room, or let the variable name a folder on a larger disk"
    return Finding("disk", ERROR if free < DISK_EMPTY else WARNING, value, cure)


def read_line(path: str) -> str:
    """First line of a small system file; empty where it cannot be read."""
    try:
        return Path(path).read_text().splitlines()[0]
    except (OSError, IndexError):
        return ""
