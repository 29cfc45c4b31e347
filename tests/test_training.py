"""The ordinary loop: recipe, augmentation, cost, and that an interrupted training ends like an undisturbed one."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sama.config import AugmentConfig, OptimizerConfig, TrainingConfig
from sama.images import ImageExamples, _draw_crops, augment
from sama.measures import measure_of
from sama.training import (
    Best,
    Cost,
    Validation,
    classification,
    make_optimizer,
    make_scheduler,
    predict,
    setup_torch,
    train,
)

CPU = torch.device("cpu")


def recipe(**changes: Any) -> TrainingConfig:
    settings = {"steps": 10, "batch_size": 8, "log_every": 3, "checkpoint_every": 3, "warmup_steps": 2, **changes}
    return TrainingConfig.model_validate(settings)


def model_and_examples() -> tuple[nn.Module, ImageExamples]:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (30, 1, 4, 4), dtype=torch.uint8)
    examples = ImageExamples(images, torch.randint(0, 3, (30,)), (0.4,), (0.2,))
    layers = (nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    return nn.Sequential(*layers), examples


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("at", [3, 6, 9])
def test_resumed_equals_uninterrupted(name, at):
    chosen = recipe(optimizer={"name": name}, augment={"crop_padding": 1, "horizontal_flip": True})
    model, examples = model_and_examples()
    whole, again = copy.deepcopy(model), copy.deepcopy(model)
    states, logged, relogged = {}, [], []
    options = {"seed": 5, "device": CPU, "validation": Validation(examples)}
    train(
        whole, examples, chosen, **options, log=lambda step, numbers: logged.append((step, numbers)),
        save=lambda step, state: states.setdefault(step, copy.deepcopy(state)),
    )  # fmt: skip
    assert list(states) == [3, 6, 9]
    torch.manual_seed(99)
    train(
        again, examples, chosen, **options, resume=states[at],
        log=lambda step, numbers: relogged.append((step, numbers)),
    )  # fmt: skip
    assert relogged == [line for line in logged if line[0] > at]
    for left, right in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(left, right)


def test_training_follows_its_seed_whatever_was_drawn_before():
    model, examples = model_and_examples()

    def trained(seed: int) -> torch.Tensor:
        own = copy.deepcopy(model)
        torch.rand(seed + 3)
        train(own, examples, recipe(), seed=seed, device=CPU)
        return next(own.parameters()).detach()

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_each_step_follows_its_own_gradient():
    model, examples = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), model_and_examples()[1]
    before, seen = copy.deepcopy(model), []

    def watched(module, arguments):
        seen.append(arguments[0].clone())

    model.register_forward_pre_hook(watched)
    chosen = recipe(
        steps=2, batch_size=30, warmup_steps=0, schedule="constant",
        optimizer={"momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.5},
    )  # fmt: skip
    train(model, examples, chosen, seed=0, device=CPU)
    every = examples.inputs(torch.arange(30), CPU)
    for _ in range(2):  # the batch is the whole set: its order does not matter
        loss = nn.functional.cross_entropy(before(every), examples.labels)
        gradients = torch.autograd.grad(loss, list(before.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(before.parameters(), gradients, strict=True):
                parameter.sub_(0.5 * gradient)
    for left, right in zip(model.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(left, right)
    assert len(seen) == 2


def test_the_cost_is_that_of_the_steps_taken():
    model, examples = model_and_examples()
    assert train(model, examples, recipe(), seed=0, device=CPU) == Cost(80, 80)
    assert train(model, examples, recipe(), seed=0, device=CPU, steps=4) == Cost(32, 32)
    assert Cost(5, 5).units == 15  # a backward is two forwards


@pytest.mark.parametrize(
    ("changes", "factors"),
    [
        ({"steps": 6, "warmup_steps": 2}, [0.5, 1.0, 1.0, 0.8535534, 0.5, 0.1464466]),
        ({"steps": 4, "warmup_steps": 0}, [1.0, 0.8535534, 0.5, 0.1464466]),
        ({"steps": 4, "warmup_steps": 2, "schedule": "constant"}, [0.5, 1.0, 1.0, 1.0]),
        ({"steps": 6, "warmup_steps": 2, "schedule": "linear"}, [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        (
            {"steps": 6, "warmup_steps": 2, "schedule": "step", "milestones": (1 / 3, 2 / 3)},
            [0.5, 1.0, 0.1, 0.1, 0.01, 0.01],
        ),
        (
            {"steps": 5, "warmup_steps": 0, "schedule": "step", "milestones": (0.5, 0.7), "decay_factor": 0.5},
            [1.0, 1.0, 0.5, 0.5, 0.25],  # at 2.5 and 3.5 steps: rounded to the even one
        ),
    ],
)
def test_schedule_by_hand(changes, factors):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=2.0)
    scheduler = make_scheduler(recipe(**changes), optimizer)
    found = []
    for _ in factors:
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert found == pytest.approx([2.0 * factor for factor in factors])


def test_optimizers_get_their_knobs():
    knobs = {"learning_rate": 0.3, "momentum": 0.7, "betas": (0.5, 0.6), "weight_decay": 0.2}

    def made(name: str, **changes: Any) -> torch.optim.Optimizer:
        chosen = OptimizerConfig.model_validate({"name": name, **knobs, **changes})
        return make_optimizer(chosen, iter([nn.Parameter(torch.ones(1))]))

    sgd = made("sgd")
    assert (sgd.defaults["lr"], sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.3, 0.7, True)
    assert sgd.defaults["weight_decay"] == 0.2
    assert made("sgd", nesterov=False).defaults["nesterov"] is False
    assert made("sgd", momentum=0.0).defaults["nesterov"] is False
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        optimizer = made(name)
        assert type(optimizer) is kind
        assert (optimizer.defaults["lr"], optimizer.defaults["betas"]) == (0.3, (0.5, 0.6))
        assert optimizer.defaults["weight_decay"] == 0.2


def test_crops_and_flips_are_those_of_the_image():
    generator = torch.Generator().manual_seed(0)
    images = torch.arange(1, 21, dtype=torch.float32).view(1, 1, 4, 5).repeat(400, 1, 1, 1)
    padded = nn.functional.pad(images[0, 0], (1,) * 4)
    windows = [padded[top : top + 4, left : left + 5] for top in range(3) for left in range(3)]
    cropped = augment(images, AugmentConfig(crop_padding=1), generator)
    counts = [sum(torch.equal(image[0], window) for image in cropped) for window in windows]
    assert sum(counts) == 400
    assert min(counts) > 20
    flipped = augment(images, AugmentConfig(horizontal_flip=True), generator)
    mirrored = sum(torch.equal(image, images[0].flip(-1)) for image in flipped)
    assert 150 < mirrored < 250
    assert sum(torch.equal(image, images[0]) for image in flipped) == 400 - mirrored


def test_inputs_are_normalised_by_channel():
    images = torch.tensor([[[[0]], [[255]]], [[[51]], [[102]]]], dtype=torch.uint8)
    examples = ImageExamples(images, torch.zeros(2, dtype=torch.int64), (0.2, 0.5), (0.1, 0.25))
    found = examples.inputs(torch.tensor([1, 0]), CPU)
    torch.testing.assert_close(found[:, :, 0, 0], torch.tensor([[0.0, -0.4], [-2.0, 2.0]]), atol=1e-6, rtol=0)


def test_batches_come_in_order_and_are_shared_out_without_padding():
    _, examples = model_and_examples()
    alone = list(examples.batches(7, CPU))
    assert [len(indices) for indices, _ in alone] == [7, 7, 7, 7, 2]
    assert torch.cat([indices for indices, _ in alone]).tolist() == list(range(30))
    for indices, inputs in alone:
        assert torch.equal(inputs, examples.inputs(indices, CPU))
    shares = [list(examples.batches(7, CPU, rank=rank, world_size=3)) for rank in range(3)]
    assert [len(share) for share in shares] == [2, 2, 1]
    for number, (indices, inputs) in enumerate(alone):
        theirs = shares[number % 3][number // 3]
        assert torch.equal(theirs[0], indices) and torch.equal(theirs[1], inputs)


def test_batches_that_are_left_out_are_not_begun():
    _, examples = model_and_examples()
    rest = list(examples.batches(4, CPU, rank=1, world_size=2, skip=2))
    assert [indices.tolist() for indices, _ in rest] == [list(range(20, 24)), list(range(28, 30))]


def test_random_crops_have_areas_and_ratios_evenly_drawn():
    """Areas between the two, ratios evenly in their logarithm, as in torchvision; places anywhere."""
    crops = _draw_crops(4000, (0.2, 0.6), torch.Generator().manual_seed(0))
    for drawn, low, high in zip(crops.T, (0.2, math.log(3 / 4), 0, 0), (0.6, math.log(4 / 3), 1, 1), strict=True):
        values = drawn.log() if low < 0 else drawn
        shares = torch.histc(values, 4, low, high) / 4000
        assert values.min() >= low and values.max() <= high
        torch.testing.assert_close(shares, torch.full((4,), 0.25, dtype=torch.float64), atol=0.03, rtol=0)


def test_stored_images_are_begun_early_and_cropped_by_the_generator_of_their_batch():
    asked: list[tuple[list[int], bool]] = []

    class Stored:
        def __len__(self) -> int:
            return 12

        def begin(self, rows, crops=None):
            asked.append((rows.tolist(), crops is not None))
            return lambda: np.zeros((len(rows), 1, 4, 4), np.uint8)

    examples = ImageExamples(Stored(), torch.arange(12), (0.5,), (0.25,))
    passes = examples.batches(2, CPU)
    next(passes)
    assert [rows for rows, _ in asked] == [[0, 1], [2, 3], [4, 5]]  # the first, and two before their turn
    assert len(list(passes)) == 5 and not any(cropped for _, cropped in asked)
    examples.begin(torch.arange(3), CPU, AugmentConfig(random_resized_crop=(0.1, 1.0)))
    assert asked[-1] == ([0, 1, 2], True)


def test_images_of_one_size_have_no_random_resized_crop():
    _, examples = model_and_examples()
    with pytest.raises(ValueError, match=r"random resized crop .* set data\.storage to encoded"):
        examples.begin(torch.arange(3), CPU, AugmentConfig(random_resized_crop=(0.1, 1.0)))


def test_predictions_are_made_in_eval_mode_and_leave_the_mode():
    model, examples = model_and_examples()
    before = copy.deepcopy(model.state_dict())
    found = predict(model, examples, CPU, batch_size=7)
    assert model.training
    torch.testing.assert_close(found, predict(model, examples, CPU))
    assert found.shape == (30, 3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    predict(model, examples, CPU)
    assert not model.training


def test_threads_and_device_are_set():
    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        assert setup_torch(3, "cpu") == CPU
        assert torch.get_num_threads() == 3
        assert torch.are_deterministic_algorithms_enabled()
        if not torch.cuda.is_available():
            with pytest.raises(ValueError, match="torch finds no GPU"):
                setup_torch(1, "cuda")
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic)


def test_adam_takes_its_epsilon():
    settings = {"name": "adamw", "learning_rate": 0.1, "epsilon": 0.5, "weight_decay": 0.0, "betas": (0.0, 0.0)}
    parameter = nn.Parameter(torch.tensor([1.0]))
    optimizer = make_optimizer(OptimizerConfig.model_validate(settings), iter([parameter]))
    parameter.grad = torch.tensor([1.5])
    optimizer.step()
    assert parameter.item() == pytest.approx(1.0 - 0.1 * 1.5 / (1.5 + 0.5))


def test_the_best_weights_are_the_first_of_equals():
    model, best = nn.Linear(1, 1, bias=False), Best()
    for step, value in enumerate((0.5, 0.75, 0.75, 0.25), start=1):
        nn.init.constant_(model.weight, step)
        best.offer(value, step, model)
    assert (best.value, best.step, best.weights["weight"].item()) == (0.75, 2, 2.0)


def test_the_objective_and_the_measure_are_those_given():
    model, examples = model_and_examples()
    told, best = [], Best()

    def halved(forward, inputs, labels):
        loss, logits = classification(forward, inputs, labels)
        return loss / 2, logits

    def measure(logits, labels):
        assert logits.shape == (30, 3) and torch.equal(labels, examples.labels)
        return 0.125

    validation = Validation(examples, measure, "f1", best)
    log = lambda step, numbers: told.append(numbers)  # noqa: E731
    one = recipe(steps=1, batch_size=30)
    train(copy.deepcopy(model), examples, one, seed=0, device=CPU, log=log)
    train(copy.deepcopy(model), examples, one, seed=0, device=CPU, log=log, objective=halved, validation=validation)
    assert told[1]["train/loss"] == pytest.approx(told[0]["train/loss"] / 2)
    assert told[1]["validation/f1"] == 0.125
    assert set(best.weights) == set(model.state_dict())


def test_measures_by_hand():
    labels = torch.tensor([1, 1, 0, 0, 1])
    logits = nn.functional.one_hot(torch.tensor([1, 0, 0, 1, 1]), 2).float()
    assert measure_of("accuracy")(logits, labels) == measure_of("micro_f1")(logits, labels) == pytest.approx(0.6)
    assert measure_of("binary_f1")(logits, labels) == pytest.approx(2 / 3)
    assert measure_of("macro_f1")(logits, labels) == pytest.approx((2 / 3 + 1 / 2) / 2)
    with pytest.raises(ValueError, match=r"expected a measure of accuracy, macro_f1, .* got 'f1'"):
        measure_of("f1")
