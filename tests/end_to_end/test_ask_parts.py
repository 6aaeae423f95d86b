"""gmabs ask in parts with a model of nnU-Net: the round that one process asks."""

import json
import os
from unittest import mock

import pytest
import torch
from tiny import Training

from nnunet_gmabs import cli
from nnunet_gmabs.annotation.requests import read_request

pytestmark = pytest.mark.slow


def test_parts_ask_the_round_of_one_process(project, tmp_path, capsys):
    training = Training(project, tmp_path / "training", "nnUNetTrainer")
    trainer = training.build()
    training.output.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(str(training.final))
    for name, content in (("plans.json", trainer.plans_manager.plans), ("dataset.json", trainer.dataset_json)):
        (training.output.parent / name).write_text(json.dumps(content))
    rounds = {}
    for name, parts in (("whole", [[]]), ("parts", [["-num_parts", "2", "-part_id", part] for part in "10"])):
        copy = project.copy(tmp_path / name)
        for part in parts:
            with mock.patch.dict(os.environ, copy.variables()):
                what = ["-d", copy.number, "--scans", "2", "--from", str(training.output.parent)]
                what += ["--strategy", "uncertainty-diverse"]
                assert cli.main(["ask", *what, *part]) == 0
        rounds[name] = read_request(copy.raw, 0)
    assert rounds["whole"].scans == rounds["parts"].scans and rounds["whole"].strategy == "uncertainty-diverse"
    assert all(0 <= scan.score <= 1 for scan in rounds["whole"].scans)
    assert "part 1 is done; 2 scans are left to other parts" in capsys.readouterr().out
    # a checkpoint that was trained on is another model
    looks = copy.raw / "gmabs" / "looks"
    assert len(list(looks.iterdir())) == 1
    with torch.no_grad():
        next(trainer.network.parameters()).add_(0.1)
    trainer.save_checkpoint(str(training.final))
    with mock.patch.dict(os.environ, copy.variables()):
        assert cli.main(["ask", *what]) == 0
    assert len(list(looks.iterdir())) == 2
