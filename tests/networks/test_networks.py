"""Classifiers of timm adapted to small images, the weight network, the teacher."""

import pytest
import torch
from torch import nn

from sama.networks.classifiers import build_classifier
from sama.networks.correction import CorrectAndWeight, CorrectionNetwork
from sama.networks.ema import EMATeacher
from sama.networks.meta_weight import MetaWeightNetwork, normalize_by_mean
from sama.networks.two_heads import TwoHeads


@pytest.mark.parametrize(
    ("name", "channels", "size", "small_stem"),
    [
        ("test_resnet", 1, 8, True),
        ("resnet18", 3, 32, True),
        ("test_efficientnet", 1, 28, True),
        ("test_vit", 3, 64, False),
        ("test_convnext", 3, 64, False),
    ],
)
def test_any_timm_model_takes_the_images(name, channels, size, small_stem):
    model = build_classifier(name, classes=7, channels=channels, image_size=size, small_stem=small_stem)
    assert model.eval()(torch.zeros(2, channels, size, size)).shape == (2, 7)


def test_the_small_stem_keeps_the_resolution():
    small = build_classifier("test_resnet", classes=2, channels=1, image_size=8, small_stem=True)
    usual = build_classifier("test_resnet", classes=2, channels=1, image_size=8)

    def side_after_the_stem(model: nn.Module) -> int:
        stem = nn.Sequential(model.get_submodule("conv1"), model.get_submodule("maxpool"))
        return stem(torch.zeros(1, 1, 8, 8)).shape[-1]

    assert side_after_the_stem(small) == 8
    assert side_after_the_stem(usual) == 2
    assert sum(p.numel() for p in small.parameters()) < 380_000


def test_unknown_models_come_with_the_nearest_names():
    with pytest.raises(ValueError, match=r"unknown timm model 'resnet81' \(nearest: resnet"):
        build_classifier("resnet81", classes=2, channels=1, image_size=8)
    with pytest.raises(ValueError, match="no stem that can be made small"):
        build_classifier("test_vit", classes=2, channels=3, image_size=64, small_stem=True)


def test_weights_start_equal_and_lie_between_zero_and_one():
    network = MetaWeightNetwork(2, 16)
    features = torch.randn(9, 2)
    assert torch.equal(network(features), torch.full((9,), 0.5))
    nn.init.normal_(network.output.weight, std=1)
    assert ((network(features) > 0) & (network(features) < 1)).all()
    torch.testing.assert_close(normalize_by_mean(torch.tensor([1.0, 3.0])), torch.tensor([0.5, 1.5]))
    assert torch.isfinite(normalize_by_mean(torch.zeros(3))).all()


def test_teacher_averages_the_student_not_itself():
    student = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    teacher = EMATeacher(student, 0.75)
    start = [p.detach().clone() for p in student.parameters()]
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(4.0)
    student(torch.randn(8, 2))  # moves the running statistics
    teacher.update(student)
    for mine, old in zip(teacher.model.parameters(), start, strict=True):
        torch.testing.assert_close(mine, old + 1.0)
        assert not mine.requires_grad
    assert torch.equal(teacher.model.get_buffer("1.running_mean"), student.get_buffer("1.running_mean"))
    assert not teacher.train().model.training
    with pytest.raises(ValueError, match=r"EMA decay in \[0, 1\), got 1.0"):
        EMATeacher(student, 1.0)


def test_the_gradient_passes_through_the_mean_of_the_weights():
    weights = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(normalize_by_mean, (weights,))
    (slope,) = torch.autograd.grad(normalize_by_mean(weights).sum(), weights)  # the sum is 3, whatever the weights
    torch.testing.assert_close(slope, torch.zeros_like(slope))


def test_the_teacher_predicts_in_eval_mode_from_the_start():
    student = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    assert not any(module.training for module in EMATeacher(student, 0.5).model.modules())
    assert student.training


def test_weights_of_scale_two_start_at_one():
    network, half = MetaWeightNetwork(1, 8, scale=2.0), MetaWeightNetwork(1, 8)
    assert torch.equal(network(torch.randn(5, 1)), torch.ones(5))
    nn.init.normal_(network.output.weight)
    half.load_state_dict(network.state_dict())
    features = torch.randn(5, 1)
    torch.testing.assert_close(network(features), 2 * half(features))


def test_correction_starts_near_the_weak_label_and_gives_probabilities():
    network, weak = CorrectionNetwork(4, 3, 8), torch.eye(3)
    share = 1 / (1 + torch.tensor(2.0).exp())  # 0.12
    torch.testing.assert_close(network(torch.randn(3, 4), weak), (1 - share) * weak + share / 3)
    nn.init.normal_(network.output.weight, std=3)
    labels = network(torch.randn(3, 4), weak)
    torch.testing.assert_close(labels.sum(-1), torch.ones(3))
    assert (labels > 0).all()
    torch.autograd.grad(labels[0, 0], list(network.parameters()))  # every parameter takes part


def test_the_weight_network_sees_the_corrected_loss_but_passes_no_gradient_through_it():
    network = CorrectAndWeight(CorrectionNetwork(2, 3, 4), nn.Flatten(0))  # the weight is the loss
    nn.init.normal_(network.correction.output.weight)  # type: ignore[union-attr]
    logs, weak = torch.randn(5, 3).log_softmax(-1), torch.eye(3)[torch.tensor([0, 1, 2, 0, 1])]
    weights, labels = network(logs, torch.randn(5, 2), weak)
    torch.testing.assert_close(weights, -(labels * logs).sum(-1))
    assert labels.requires_grad
    assert not weights.requires_grad


def test_two_heads_share_an_encoder_and_answer_the_task_by_default():
    model = TwoHeads(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(3, 5))
    inputs = torch.randn(6, 2)
    assert torch.equal(model(inputs), model.task(model.encoder(inputs)))
    assert torch.equal(model(inputs, "auxiliary"), model.auxiliary(model.encoder(inputs)))
