"""What a model cannot take is refused before it is built; third-party models come by their own names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bancache.errors import MissingExtraError, UsageError
from bancache.models import build_model


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wrn-10-1", {"classes": 1}, "not 1$"),
        ("wrn-10-1", {"channels": 2}, "not 2$"),
        ("wrn-10-1", {"image_size": (7, 32)}, r"7x32 .*8x8"),
        ("match-wrn-1-1", {"image_size": (32, 4)}, r"32x4 .*8x8"),
        ("wrn-10-1", {"dropout": 1.0}, "1.0"),
        ("densenet-bc-10-4", {"dropout": 0.3}, "densenet-bc-10-4: .*0.3"),
        ("match-densenet-2-1-2", {"dropout": 0.3}, "0.3"),
        ("torchvision:resnet18", {"dropout": 0.3}, "0.3"),
        ("wrn-10-1", {"checkpoint_activations": True}, "wrn-10-1"),
        ("wrn-11-1", {}, r"wrn-11-1: 11 .*6n \+ 4"),
    ],
)
def test_what_a_model_cannot_take_is_a_usage_error(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_model(name, **{"classes": 10, **options})


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("resnet18", 1, (32, 32)),
        ("regnet_x_400mf", 3, (32, 40)),
        ("vit_b_16", 3, (16, 16)),
        ("squeezenet1_1", 1, (32, 32)),
    ],
)
def test_torchvisions_models_come_untrained_with_our_classes_and_channels(
    name: str, channels: int, size: tuple[int, int]
) -> None:
    model = build_model(f"torchvision:{name}", classes=6, channels=channels, image_size=size)
    assert model.training
    assert model(torch.randn(2, channels, *size)).shape == (2, 6)


def test_a_third_party_model_that_cannot_take_the_images_is_refused_with_its_reason() -> None:
    with pytest.raises(UsageError, match=r"torchvision:squeezenet1_1 .* 3x8x8: .*too small"):
        build_model("torchvision:squeezenet1_1", classes=6, image_size=(8, 8))
    with pytest.raises(UsageError, match="Expected 16 but got 32"):
        build_model("torchvision:vit_b_16", classes=6, image_size=(16, 32))


def test_an_unknown_torchvision_model_gets_the_nearest_ones() -> None:
    with pytest.raises(UsageError, match="'resnet19'") as caught:
        build_model("torchvision:resnet19", classes=6)
    assert "torchvision:resnet18" in caught.value.hint


def test_without_timm_its_models_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match="timm:resnet18") as caught:
        build_model("timm:resnet18", classes=6)
    assert caught.value.hint == 'pip install "bancache[timm]"'


def test_timms_models_come_untrained_with_our_classes_and_channels() -> None:
    pytest.importorskip("timm", reason="the extra timm is not installed")
    model = build_model("timm:resnet18", classes=6, channels=1)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 6)
    with pytest.raises(UsageError, match="'resnet19'"):
        build_model("timm:resnet19", classes=6)


@pytest.mark.parametrize("answer", [lambda x: {"out": x}, lambda x: x.flatten(1)], ids=["a dict", "features"])
def test_what_returns_no_row_of_logits_is_no_classifier(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[torch.Tensor], object]
) -> None:
    """As a model of a library may that is called like a classifier."""

    class Other(torch.nn.Linear):
        def forward(self, images: torch.Tensor) -> Any:
            return answer(images)

    monkeypatch.setattr("torchvision.models.get_model", lambda *_, **__: Other(1, 1))
    with pytest.raises(UsageError, match="4 logits") as caught:
        build_model("torchvision:resnet18", classes=4, channels=3, image_size=(32, 32))
    assert "torchvision:resnet18" in caught.value.hint
