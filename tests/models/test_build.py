"""What a net cannot take is refused before it is built; foreign nets come by their own names."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from bancache.errors import MissingExtraError, UsageError
from bancache.models import build_model


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wrn-10-1", {"classes": 1}, "two classes or more, not 1"),
        ("wrn-10-1", {"channels": 2}, "1 or 3 channels, not 2"),
        ("wrn-10-1", {"image_size": (7, 32)}, "images are 7x32 pixels, and it needs 8x8"),
        ("match-wrn-1-1", {"image_size": (32, 4)}, "images are 32x4 pixels, and it needs 8x8"),
        ("wrn-10-1", {"dropout": 1.0}, "below 1, not 1.0"),
        ("densenet-bc-10-4", {"dropout": 0.3}, "no place for a dropout of 0.3"),
        ("match-densenet-2-1-2", {"dropout": 0.3}, "only wide residual units"),
        ("torchvision:resnet18", {"dropout": 0.3}, "only wide residual units"),
        ("wrn-10-1", {"checkpoint_activations": True}, "only DenseNets do"),
        ("wrn-11-1", {}, r"a depth of wrn is 6n \+ 4"),
    ],
)
def test_what_a_net_cannot_take_is_a_usage_error(name: str, options: dict[str, Any], message: str) -> None:
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
def test_torchvisions_nets_come_untrained_with_our_classes_and_channels(
    name: str, channels: int, size: tuple[int, int]
) -> None:
    net = build_model(f"torchvision:{name}", classes=6, channels=channels, image_size=size)
    assert net.training
    assert net(torch.randn(2, channels, *size)).shape == (2, 6)


def test_a_foreign_net_that_cannot_take_the_images_is_refused_with_its_reason() -> None:
    with pytest.raises(
        UsageError, match=r"torchvision:squeezenet1_1 cannot take images of 3x8x8: .*too small"
    ):
        build_model("torchvision:squeezenet1_1", classes=6, image_size=(8, 8))
    with pytest.raises(UsageError, match="Expected 16 but got 32"):
        build_model("torchvision:vit_b_16", classes=6, image_size=(16, 32))


def test_an_unknown_torchvision_net_gets_the_nearest_ones() -> None:
    with pytest.raises(UsageError, match="torchvision has no model called 'resnet19'") as caught:
        build_model("torchvision:resnet19", classes=6)
    assert "torchvision:resnet18" in caught.value.hint


def test_without_timm_its_nets_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match="timm:resnet18 needs timm") as caught:
        build_model("timm:resnet18", classes=6)
    assert caught.value.hint == 'pip install "bancache[timm]"'


def test_timms_nets_come_untrained_with_our_classes_and_channels() -> None:
    pytest.importorskip("timm", reason="the extra timm is not installed")
    net = build_model("timm:resnet18", classes=6, channels=1)
    assert net(torch.randn(2, 1, 32, 32)).shape == (2, 6)
    with pytest.raises(UsageError, match="timm has no model called 'resnet19'"):
        build_model("timm:resnet19", classes=6)
