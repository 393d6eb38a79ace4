"""What holds for every family, on a narrow sibling of each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bancache.models import build_model
from bancache.models.match_frame import Frame

SIBLINGS: dict[str, dict[str, Any]] = {
    "wrn-10-1": {"dropout": 0.3},
    "preresnet-11": {},
    "resnet-8": {},
    "convnet-4": {},
    "densenet-bc-16-4": {"checkpoint_activations": True},
    "densenet-bc-10-4": {},
    "match-wrn-1-0.5@densenet-bc-10-4": {"dropout": 0.3},
    "match-preresnet-2-1@densenet-bc-16-8": {},
    "match-densenet-2-0.5-2@densenet-bc-10-4": {"checkpoint_activations": True},
}
each = pytest.mark.parametrize("name", SIBLINGS)


def build(name: str, classes: int = 7, channels: int = 3) -> Frame:
    torch.manual_seed(0)
    model = build_model(name, classes=classes, channels=channels, **SIBLINGS[name])
    assert isinstance(model, Frame)
    return model


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@each
def test_one_step_of_sgd_lowers_the_loss_and_reaches_every_parameter(name: str) -> None:
    model = build(name)
    batch, labels = images(8, 3, 16, 16), torch.arange(8) % 7
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = {key: value.clone() for key, value in model.named_parameters()}
    torch.manual_seed(2)
    loss = F.cross_entropy(model(batch), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    torch.manual_seed(2)
    assert F.cross_entropy(model(batch), labels) < loss
    unmoved = [key for key, value in model.named_parameters() if torch.equal(value, before[key])]
    assert unmoved == []


@each
@pytest.mark.parametrize(
    ("channels", "height", "width", "classes"),
    [(1, 8, 8, 2), (3, 9, 31, 10), (1, 224, 8, 100), (3, 64, 64, 3)],
)
def test_any_size_from_8_on_gray_or_color_gives_one_row_of_scores(
    name: str, channels: int, height: int, width: int, classes: int
) -> None:
    model = build(name, classes, channels)
    scores = model(images(2, channels, height, width))
    assert scores.shape == (2, classes)
    assert torch.isfinite(scores).all()


@each
def test_a_224_pixel_image_passes(name: str) -> None:
    with torch.no_grad():
        assert build(name).eval()(images(1, 3, 224, 224)).shape == (1, 7)


@each
def test_the_forward_and_backward_pass_compile_without_a_graph_break_to_the_same_numbers(name: str) -> None:
    torch.compiler.reset()
    plain, compiled = build(name), build(name)
    # The backend "eager" runs torch's checkpoint on buffers the graph writes to; real ones keep these apart.
    backend = "aot_eager" if "checkpoint_activations" in SIBLINGS[name] else "eager"
    run = torch.compile(compiled, fullgraph=True, backend=backend)
    batch = images(4, 3, 8, 8)
    for model, call in ((plain, plain), (compiled, run)):
        torch.manual_seed(2)
        model.zero_grad()
        scores: Tensor = call(batch)
        scores.square().sum().backward()  # type: ignore[no-untyped-call]
    for (key, one), two in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        torch.testing.assert_close(one.grad, two.grad, msg=key)
    for (key, seen), also in zip(plain.named_buffers(), compiled.buffers(), strict=True):
        torch.testing.assert_close(seen, also, msg=key)


@each
def test_bfloat16_autocast_stays_near_float32_and_trains(name: str) -> None:
    model = build(name).eval()
    batch = images(4, 3, 16, 16)
    exact = model(batch).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(batch)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.1, atol=0.1 * float(exact.abs().max()))
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.cross_entropy(model(batch), torch.arange(4))
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@each
def test_channels_last_gives_the_same_scores_and_keeps_its_layout(name: str) -> None:
    model = build(name).eval()
    batch = images(2, 3, 16, 16)
    exact = model(batch)
    model = model.to(memory_format=torch.channels_last)
    strides: list[bool] = []
    for stage in model.stages:
        stage.register_forward_hook(
            lambda _, __, out: strides.append(out.is_contiguous(memory_format=torch.channels_last))
        )
    torch.testing.assert_close(model(batch.to(memory_format=torch.channels_last)), exact)
    assert strides
    assert all(strides)


@each
def test_ends_are_attributes_of_the_right_shape(name: str) -> None:
    model = build(name, classes=5, channels=1)
    assert isinstance(model.first_layer, nn.Conv2d)
    assert isinstance(model.last_layer, nn.Linear)
    assert model.first_layer.in_channels == 1
    assert model.first_layer.bias is None
    assert model.last_layer.out_features == 5
    assert model.last_layer.bias is not None


@each
def test_the_same_seed_draws_the_same_model(name: str) -> None:
    one, two = build(name).state_dict(), build(name).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_parameter_names_stay_since_checkpoints_of_old_runs_have_them() -> None:
    unit = ["norm1", "conv1", "norm2", "conv2", "projection"]
    wide = {key.rpartition(".")[0] for key in build("wrn-10-1").state_dict()}
    assert wide == {
        *("first_layer", "tail.0", "last_layer"),
        *(f"stages.{i}.0.{part}" for i in range(3) for part in unit if (i, part) != (0, "projection")),
    }
    dense = {key.rpartition(".")[0] for key in build("densenet-bc-10-4").state_dict()}
    assert dense == {
        *("first_layer", "tail.0", "last_layer"),
        *(
            f"stages.{i}.block.units.0.{half}.{part}"
            for i in range(3)
            for half in ("bottleneck", "conv")
            for part in "02"
        ),
        *(f"stages.{i}.transition.{part}" for i in range(2) for part in "02"),
    }


def test_dropout_sits_in_wide_units_and_is_off_when_the_model_is_evaluated() -> None:
    model = build("wrn-10-1")
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert rates == [0.3, 0.3, 0.3]
    batch = images(2, 3, 8, 8)
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    assert torch.equal(model(batch), model(batch))


def test_the_digits_model_learns_digits_in_seconds() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    pixels = (pixels.float() / 16).reshape(-1, 1, 8, 8) * 2 - 1
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:1400], order[1400:]
    torch.manual_seed(0)
    model = build_model("convnet-16", classes=10, channels=1, image_size=(8, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10 * 11)
    for _ in range(10):
        shuffled = train[torch.randperm(len(train))]
        for batch in torch.split(shuffled, 128):
            optimizer.zero_grad()
            F.cross_entropy(model(pixels[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        right = (model(pixels[test]).argmax(1) == labels[test]).float().mean()
    assert right > 0.975
