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


def test_checkpointed_activations_give_the_same_gradients():
    network = SRVGGNetCompact(2, 3, num_feat=4, num_conv=2)
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
