"""gmabs export where its disk is full."""

import pytest
import torch

from nnunet_gmabs.commands.export import export
from nnunet_gmabs.errors import InputError

resource = pytest.importorskip("resource")  # POSIX


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path):
    fold = tmp_path / "model" / "fold_0"
    fold.mkdir(parents=True)
    for name in ("plans.json", "dataset.json"):
        (fold.parent / name).write_text("{}")
    content = dict.fromkeys(("init_args", "trainer_name", "inference_allowed_mirroring_axes", "current_epoch"))
    networks = {"student": {"weight": torch.zeros(100_000)}}
    torch.save({**content, "gmabs": {"networks": networks}}, fold / "checkpoint_final.pth")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # bytes of a file: torch fails as on a full disk
    try:
        with pytest.raises(InputError, match="exported: could not be written .*; make room"):
            export(fold, "checkpoint_final.pth", ["student"], tmp_path / "exported")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    export(fold, "checkpoint_final.pth", ["student"], tmp_path / "exported")
    assert (tmp_path / "exported" / "fold_0" / "checkpoint_final.pth").is_file()
