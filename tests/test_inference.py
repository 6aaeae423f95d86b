from types import SimpleNamespace

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

from nnunet_gmabs.inference import SlidingWindows, features_of_last_layer

CPU = torch.device("cpu")
SHAPE, PATCH = (11, 12, 17), (8, 8, 8)


class Pointwise(nn.Module):
    """Every voxel for itself, so that windows cannot matter; built like nnU-Net's networks where it counts."""

    def __init__(self, deep=True):
        super().__init__()
        self.first = nn.Conv3d(2, 5, 1)
        self.decoder = nn.Module()
        self.decoder.seg_layers = nn.ModuleList([nn.Conv3d(5, 3, 1), nn.Conv3d(5, 3, 1)])
        self.deep, self.passes = deep, 0

    def forward(self, x):
        self.passes += len(x)
        features = self.first(x)
        full = self.decoder.seg_layers[1](features)
        return [full, self.decoder.seg_layers[0](features)] if self.deep else full


def unet(dimensions):
    torch.manual_seed(0)
    conv, norm = (nn.Conv3d, nn.InstanceNorm3d) if dimensions == 3 else (nn.Conv2d, nn.InstanceNorm2d)
    net = PlainConvUNet(
        1, 2, [4, 6], conv, 3, [1, 2], 1, 3, 1, norm_op=norm, nonlin=nn.LeakyReLU, deep_supervision=True
    )
    return net.eval()


@pytest.fixture
def image():
    return torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [SHAPE, (5, 9, 8)], ids=["larger", "smaller than the patch"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_probabilities_are_nnunets_own(dimensions, shape):
    scan, patch, network = torch.randn(1, *shape), PATCH[:dimensions], unet(dimensions)
    predictor = nnUNetPredictor(0.5, True, False, False, CPU, allow_tqdm=False)
    network.decoder.deep_supervision = False
    predictor.network = network
    predictor.configuration_manager = SimpleNamespace(patch_size=patch)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=3)
    expected = torch.softmax(predictor.predict_sliding_window_return_logits(scan).float(), 0)
    network.decoder.deep_supervision = True
    difference = (SlidingWindows(scan, network, patch, CPU).probs() - expected).abs()
    # nnU-Net adds up in half precision: noisy in corners, where all its Gaussian weights are tiny
    assert difference.quantile(0.95) < 2e-3 and difference.max() < 0.1


def test_the_windows_share_every_voxel_completely(image):
    windows = SlidingWindows(image, Pointwise(), PATCH, CPU)
    total = torch.zeros(windows.image.shape[1:])
    for window in windows.windows:
        total[window] += windows.weight(window)
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("features_bytes", [0, 1 << 20], ids=["three passes", "features kept"])
def test_an_average_over_windows_of_pointwise_features_is_that_of_the_whole_scan(image, features_bytes):
    network = Pointwise()
    windows = SlidingWindows(image, network, PATCH, CPU, batch_size=3, features_bytes=features_bytes)
    windows.probs(keep_features=True)
    whole = network.first(image[None])[0]
    torch.testing.assert_close(windows.averaged(2, lambda f: f[:2].square()), whole[:2].square())
    sums = sum((weight * features).sum((1, 2, 3)) for _, weight, features in windows.each_features())
    torch.testing.assert_close(sums, whole.sum((1, 2, 3)), rtol=1e-4, atol=1e-3)
    assert network.passes == len(windows.windows) * (1 if features_bytes else 3)


def test_every_window_is_computed_in_mixed_precision_and_what_is_made_of_it_in_single():
    network, seen, compared = Pointwise(), [], []
    network.decoder.seg_layers[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    scan = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    windows = SlidingWindows(scan, network, PATCH, CPU, batch_size=3, features_bytes=0, cpu_bfloat16=True)
    for _ in windows.each_features():
        assert not torch.is_autocast_enabled("cpu")
    windows.averaged(1, lambda f: compared.append(torch.is_autocast_enabled("cpu")) or f[:1])
    assert len(windows.windows) > 2 * 3 and set(seen) == {torch.bfloat16}
    assert not any(compared)


def test_a_2d_network_sees_every_slice_of_the_first_axis():
    scan = torch.randn(1, 5, 9, 12)
    windows = SlidingWindows(scan, unet(2), (8, 8), CPU)
    assert {window[0] for window in windows.windows} == set(range(5))
    assert windows.probs().shape == (3, 5, 9, 12)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_window_knows_its_place_in_the_scan(dimensions):
    values = torch.arange(1.0, 136).view(1, 5, 9, 3)
    windows = SlidingWindows(values, unet(dimensions), PATCH[:dimensions], CPU)
    seen = torch.zeros(5, 9, 3)
    for window in windows.windows:
        within, place = windows.inside(window)
        torch.testing.assert_close(windows.image[0][window][within], values[0][place])
        assert windows.image[0][window].sum() == values[0][place].sum()
        seen[place] += 1
    assert (seen > 0).all()


def test_a_network_without_segmentation_layers_is_named():
    with pytest.raises(NotImplementedError, match="Sequential has no decoder.seg_layers"):
        with features_of_last_layer(nn.Sequential()):
            pass


def test_probabilities_alone_need_no_features(image):
    network = nn.Conv3d(2, 3, 1)  # no decoder
    torch.testing.assert_close(SlidingWindows(image, network, PATCH, CPU).probs(), network(image).softmax(0).detach())
    with pytest.raises(NotImplementedError, match=r"Conv3d has no decoder\.seg_layers"):
        SlidingWindows(image, network, PATCH, CPU).probs(keep_features=True)


def test_nothing_stays_hooked():
    network = Pointwise()
    with features_of_last_layer(network):
        pass
    assert not network.decoder.seg_layers[-1]._forward_pre_hooks
