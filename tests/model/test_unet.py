"""The net is the paper's: figure 1's sizes and parameters, valid convolutions only."""

from __future__ import annotations

import pytest
import torch

from model.tiling import valid_unet_geometry
from model.unet import UNet


@pytest.mark.parametrize(("width", "parameters"), [(64, 31_030_658), (32, 7_759_554), (16, 1_940_834)])
def test_parameters_are_those_of_the_paper(width: int, parameters: int) -> None:
    with torch.device("meta"):
        net = UNet(in_channels=1, classes=2, base_width=width, depth=4)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


def test_572_gives_388() -> None:
    with torch.device("meta"):
        output = UNet(base_width=64)(torch.empty(1, 1, 572, 572))
    assert output.shape == (1, 2, 388, 388)


@pytest.mark.parametrize("downscale", [1, 2, 4])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_every_legal_size_gives_what_the_geometry_says(depth: int, downscale: int) -> None:
    geometry = valid_unet_geometry(depth, downscale)
    net = UNet(in_channels=3, classes=4, base_width=2, depth=depth, downscale=downscale).eval()
    rows, columns = geometry.y.minimum, geometry.x.minimum + 3 * geometry.x.step
    with torch.inference_mode():
        assert net(torch.zeros(2, 3, rows, columns)).shape == (2, 4, *geometry.output_shape((rows, columns)))


def test_an_illegal_size_is_an_error_and_not_a_shifted_answer() -> None:
    net = UNet(base_width=2, depth=2)
    with pytest.raises(RuntimeError):
        net(torch.zeros(1, 1, valid_unet_geometry(2).y.minimum + 2, 60))


def test_initial_activations_keep_their_variance_from_layer_to_layer() -> None:
    """He initialisation (section 3): feature maps neither fade nor grow."""
    torch.manual_seed(0)
    net = UNet(base_width=32, depth=2, dropout=0)
    features = torch.randn(4, 1, 92, 92)
    with torch.inference_mode():
        response = net.down.get_submodule("0.0")(features)
        next_response = net.down.get_submodule("0.2")(torch.relu(response))
    assert 0.7 < (next_response.var() / response.var()).item() < 1.4


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    net = UNet(base_width=4, depth=1, dropout=0.5)
    image = torch.randn(1, 1, 40, 40)
    assert not torch.equal(net.train()(image), net.train()(image))
    assert torch.equal(net.eval()(image), net.eval()(image))


def test_a_downscaled_net_begins_with_every_pixel_in_a_channel_of_its_own() -> None:
    image = torch.rand(1, 3, 8, 6)
    stem = UNet(in_channels=3, base_width=2, depth=1, downscale=2).stem
    with torch.inference_mode():
        assert torch.equal(stem(image), torch.nn.functional.pixel_unshuffle(image, 2))


def test_a_folded_net_is_the_papers_and_answers_as_before() -> None:
    torch.manual_seed(0)
    net = UNet(base_width=4, depth=2, dropout=0, batch_norm=True)
    images = torch.randn(2, 1, 60, 60)
    for _ in range(3):
        net.train()(images)
    folded, plain = net.folded(), UNet(base_width=4, depth=2)
    plain.load_state_dict(folded.state_dict())
    assert net.training, "the net that learns is left as it was"
    with torch.inference_mode():
        torch.testing.assert_close(plain.eval()(images), net.eval()(images))
