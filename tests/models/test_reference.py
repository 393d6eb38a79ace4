"""The families against slow versions written from the papers, and their first weights against the stated laws."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bancache.models import build_model
from bancache.models.match_frame import Frame


class Weights:
    """A model's numbers in the order in which the paper's formulas use them up."""

    def __init__(self, model: nn.Module, prefix: str) -> None:
        self.values = {key: value.detach() for key, value in model.state_dict().items()}
        self.prefix = prefix

    def at(self, prefix: str) -> Weights:
        other = Weights(nn.Module(), f"{self.prefix}{prefix}.")
        other.values = self.values
        return other

    def has(self, name: str) -> bool:
        return f"{self.prefix}{name}.weight" in self.values

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.values[f"{self.prefix}{name}.weight"]
        out: Tensor = F.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)
        return out

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, variance, gain, bias = (
            self.values[f"{self.prefix}{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        out: Tensor = (x - mean) / (variance + 1e-5).sqrt() * gain + bias
        return out

    def end(self, x: Tensor) -> Tensor:
        out: Tensor = x.mean(3).mean(2) @ self.values["last_layer.weight"].T + self.values["last_layer.bias"]
        return out


def lived(name: str) -> nn.Module:
    """A model whose BatchNorms have seen something, so that forgetting one shows."""
    torch.manual_seed(0)
    model = build_model(name, classes=4).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    nn.init.normal_(model.get_parameter("last_layer.bias"))
    return model.eval()


def preactivation(w: Weights, x: Tensor, convolutions: int, stride: int, stride_of: int) -> Tensor:
    """Identity Mappings, equations 1 and 2 with f the identity and pre-activation inside F."""
    active = F.relu(w.norm("norm1", x))
    y = active
    for i in range(1, convolutions + 1):
        y = F.relu(w.norm(f"norm{i}", y)) if i > 1 else y
        y = w.conv(f"conv{i}", y, stride if i == stride_of else 1)
    return y + (w.conv("projection", active, stride) if w.has("projection") else x)


@pytest.mark.parametrize(("name", "convolutions", "units"), [("wrn-16-2", 2, 2), ("preresnet-20", 3, 2)])
def test_preactivation_models_equal_the_papers_formulas(name: str, convolutions: int, units: int) -> None:
    model = lived(name)
    images = torch.randn(2, 3, 11, 8, dtype=torch.float64)
    w = Weights(model, "")
    x = w.conv("first_layer", images)
    for stage in range(3):
        for unit in range(units):
            stride = 2 if stage > 0 and unit == 0 else 1
            x = preactivation(w.at(f"stages.{stage}.{unit}"), x, convolutions, stride, stride_of=1)
    torch.testing.assert_close(model(images), w.end(F.relu(w.norm("tail.0", x))))


def test_resnet_equals_the_papers_formulas_with_option_a() -> None:
    model = lived("resnet-14")
    images = torch.randn(2, 3, 11, 8, dtype=torch.float64)
    w = Weights(model, "")
    x = F.relu(w.norm("stages.0.0", w.conv("first_layer", images)))
    for stage in range(3):
        for unit in range(2):
            stride = 2 if stage > 0 and unit == 0 else 1
            u = w.at(f"stages.{stage + 1}.{unit}")
            y = u.norm("norm2", u.conv("conv2", F.relu(u.norm("norm1", u.conv("conv1", x, stride)))))
            if stride == 2:
                quarter = torch.zeros_like(y[:, : y.shape[1] // 4])
                x = torch.cat([quarter, x[:, :, ::2, ::2], quarter], dim=1)
            x = F.relu(y + x)
    torch.testing.assert_close(model(images), w.end(x))


def test_densenet_equals_the_papers_formulas() -> None:
    model = lived("densenet-bc-16-6")
    images = torch.randn(2, 3, 11, 8, dtype=torch.float64)
    w = Weights(model, "")
    x = w.conv("first_layer", images)
    for stage in range(3):
        for unit in range(2):
            u = w.at(f"stages.{stage}.block.units.{unit}")
            y = u.conv("bottleneck.2", F.relu(u.norm("bottleneck.0", x)))
            x = torch.cat([x, u.conv("conv.2", F.relu(u.norm("conv.0", y)))], dim=1)
        if stage < 2:
            t = w.at(f"stages.{stage}.transition")
            x = F.avg_pool2d(t.conv("2", F.relu(t.norm("0", x))), 2)
    torch.testing.assert_close(model(images), w.end(F.relu(w.norm("tail.0", x))))


@pytest.mark.parametrize("name", ["wrn-16-4", "preresnet-29", "resnet-20", "densenet-bc-40-12", "convnet-64"])
def test_first_weights_follow_the_published_laws(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, classes=1000)
    assert isinstance(model, Frame)
    normalized: list[Tensor] = []
    gains: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            size = module.kernel_size[0]
            normalized.append(module.weight.flatten() * math.sqrt(size * size * module.out_channels / 2))
        elif isinstance(module, nn.BatchNorm2d):
            gains.append(module.weight)
            assert not module.bias.any()
    drawn = torch.cat(normalized).detach()
    assert float(drawn.mean()) == pytest.approx(0, abs=0.02)
    assert float(drawn.std()) == pytest.approx(1, abs=0.02)
    assert float((drawn**4).mean()) == pytest.approx(3, abs=0.15)  # Normal, not uniform.
    gain = torch.cat(gains).detach()
    assert bool((gain == 1).all())
    last = model.last_layer.requires_grad_(requires_grad=False)
    assert not last.bias.any()
    assert float(last.weight.abs().max()) <= last.in_features**-0.5
    assert float(last.weight.std()) == pytest.approx((3 * last.in_features) ** -0.5, rel=0.02)
