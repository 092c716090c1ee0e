"""SRVGGNetCompact computes what its definition says, at every scale and with every activation."""

import pytest
import torch
import torch.nn.functional as F

from esrgan.models import SRVGGNetCompact


def test_default_network_has_the_names_and_the_size_of_realesr_animevideov3():
    state = SRVGGNetCompact().state_dict()
    assert sum(value.numel() for value in state.values()) == 621_424
    convs = [name for name, value in state.items() if value.ndim == 4]
    assert convs == [f"body.{i}.weight" for i in range(0, 35, 2)]
    assert state["body.1.weight"].shape == (64,)
    assert state["body.34.weight"].shape == (48, 64, 3, 3)


@pytest.mark.parametrize(("act_type", "slope"), [("prelu", 0.25), ("relu", 0.0), ("leakyrelu", 0.1)])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_network_computes_its_definition(scale, act_type, slope):
    torch.manual_seed(0)
    network = SRVGGNetCompact(scale, 3, num_feat=8, num_conv=2, act_type=act_type).double()
    low = torch.rand(2, 3, 7, 9, dtype=torch.float64)
    x, state = low, network.state_dict()
    for i in (0, 2, 4, 6):
        x = F.conv2d(x, state[f"body.{i}.weight"], state[f"body.{i}.bias"], padding=1)
        x = torch.where(x > 0, x, slope * x) if i < 6 else x
    expected = torch.empty(2, 3, 7 * scale, 9 * scale, dtype=torch.float64)
    for row in range(scale):
        for column in range(scale):
            expected[..., row::scale, column::scale] = low + x[:, row * scale + column :: scale**2]
    torch.testing.assert_close(network(low), expected, rtol=0, atol=1e-12)


def test_every_parameter_learns():
    network = SRVGGNetCompact(2, 1, num_feat=4, num_conv=1)
    network(torch.rand(1, 1, 8, 8)).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("num_conv", [2, 16, 32])
def test_details_reach_the_last_layer_of_a_new_network(num_conv):
    """Without skip connections they would soon be lost, and training could not start."""
    torch.manual_seed(0)
    network = SRVGGNetCompact(num_conv=num_conv)
    low = 0.5 + 0.1 * torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        first = network.body[:2](low)
        last = network.body[:-1](low)
        residual = network(low) - F.interpolate(low, scale_factor=4)
    details = [(x - x.mean((2, 3), keepdim=True)).std() for x in (first, last)]
    assert 0.3 < details[1] / details[0] < 10
    assert details[1] / last.std() > 0.2
    assert residual.std() < 0.1


def test_a_new_network_soon_becomes_better_than_what_it_starts_from():
    torch.manual_seed(0)
    network = SRVGGNetCompact(2, 1, num_feat=16, num_conv=12)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(60):
        waves = torch.rand(8, 2, 1, 1) * 0.6  # gratings of many directions and periods
        rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
        high = 0.5 + 0.4 * torch.sin(waves[:, :1] * rows + waves[:, 1:] * columns)
        low = F.interpolate(high, scale_factor=0.5, mode="area")
        loss = F.l1_loss(network(low), high)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach() / F.l1_loss(F.interpolate(low, scale_factor=2), high)))
    assert sum(losses[-10:]) / 10 < 0.8


@pytest.mark.parametrize("act_type", ["prelu", "relu", "leakyrelu"])
def test_checkpointed_activations_give_the_same_gradients(act_type):
    network = SRVGGNetCompact(2, 3, num_feat=4, num_conv=2, act_type=act_type)
    low, gradients = torch.rand(1, 3, 8, 8), []
    for network.activation_checkpointing in (False, True):
        network.zero_grad()
        network(low).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize(("options", "message"), [({"scale_factor": 0}, "1 or more"), ({"act_type": "gelu"}, "prelu")])
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SRVGGNetCompact(**options)
