"""The weighting program by hand, in float64."""

import pytest
import torch
from torch import nn
from torch.nn.functional import log_softmax, softmax

from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.reweight import LabelledBatch, Reweight


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("features", [("loss", "uncertainty"), ("uncertainty", "loss")])
def test_losses_features_and_weights_by_hand(features, normalize):
    torch.manual_seed(0)
    model, teacher = nn.Linear(3, 4).double(), nn.Linear(3, 4).double()
    network = MetaWeightNetwork(2, 5).double()
    nn.init.normal_(network.output.weight)
    program = Reweight(model, network, features=features, teacher=teacher, normalize=normalize)
    inputs, labels = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    batch = program.prepare(LabelledBatch(inputs, labels, torch.arange(6)))
    base = {name: torch.randn_like(p).requires_grad_() for name, p in model.named_parameters()}
    meta = {name: torch.randn_like(p).requires_grad_() for name, p in network.named_parameters()}
    losses, values = program.example_losses(base, batch)
    logs = log_softmax(inputs @ base["weight"].T + base["bias"], -1)
    expected = -logs[range(6), labels]
    uncertainty = -(softmax(teacher(inputs), -1) * logs).sum(-1)
    columns = {"loss": expected, "uncertainty": uncertainty}
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(values, torch.stack([columns[name] for name in features], -1).detach())
    assert not values.requires_grad
    hidden = torch.relu(values @ meta["hidden.weight"].T + meta["hidden.bias"])
    raw = torch.sigmoid(hidden @ meta["output.weight"].T + meta["output.bias"])[:, 0]
    weights = raw / raw.mean() if normalize else raw
    torch.testing.assert_close(program.weights(meta, values), weights)
    torch.testing.assert_close(program.base_loss(base, meta, batch), (weights * expected).mean())
    torch.testing.assert_close(program.meta_loss(base, meta, batch), expected.mean())


def test_a_forward_may_write_the_buffers_of_both_modules():
    model, network = nn.BatchNorm1d(2), nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1), nn.Flatten(0))
    program = Reweight(model, network, features=("loss",), teacher=None, normalize=True)
    listed = {id(buffer) for buffer in program.buffers()}
    assert listed == {id(buffer) for module in (model, network) for buffer in module.buffers()}
