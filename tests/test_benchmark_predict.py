"""Predicting several windows in a pass gives what nnU-Net's one at a time gives."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@pytest.mark.parametrize("shape", [(9, 12, 21), (5, 9, 8)], ids=["ten windows", "two windows"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_logits_are_nnunets_own(monkeypatch, dimensions, shape):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from benchmark_predict import BatchedPredictor

    torch.manual_seed(0)
    conv, norm = (nn.Conv3d, nn.InstanceNorm3d) if dimensions == 3 else (nn.Conv2d, nn.InstanceNorm2d)
    network = PlainConvUNet(1, 2, [4, 6], conv, 3, [1, 2], 1, 3, 1, norm_op=norm, nonlin=nn.LeakyReLU).eval()
    passes = []
    network.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))

    def logits(kind):
        predictor = kind(0.5, True, False, False, torch.device("cpu"), allow_tqdm=False)
        predictor.network = network
        predictor.configuration_manager = SimpleNamespace(patch_size=(8, 8, 8)[:dimensions])
        predictor.label_manager = SimpleNamespace(num_segmentation_heads=3)
        return predictor.predict_sliding_window_return_logits(torch.randn(1, *shape, generator=seeded(1)))

    expected, windows = logits(nnUNetPredictor), len(passes)
    passes.clear()
    # added up in half precision by both
    torch.testing.assert_close(logits(BatchedPredictor), expected, rtol=0.01, atol=0.01)
    assert all(n > 1 for n in passes) and windows <= sum(passes) <= windows + 1


def seeded(seed):
    return torch.Generator().manual_seed(seed)
