"""numba renders the bits that torch renders, and only when it pays."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch

from bancache.errors import UsageError
from bancache.system import numba as compiled
from bancache.system.numba import Accelerator
from bancache.views import ViewSpace
from bancache.views.renderer import Normalization, Renderer

CIFAR = Normalization((125.3069, 122.9504, 113.8654), (62.9932, 62.0887, 66.7049))
GREY = Normalization((72.94,), (90.02,))


@pytest.mark.parametrize(
    ("name", "size", "channels"), [("crop4-flip", 32, 3), ("flip", 8, 1), ("crop2-zero", 9, 3)]
)
def test_every_bit_is_the_same_with_numba(name: str, size: int, channels: int) -> None:
    pytest.importorskip("numba")
    images = np.random.default_rng(3).integers(0, 256, (40, size, size, channels), dtype=np.uint8)
    images.reshape(-1)[:256] = np.arange(256)
    space, normal = ViewSpace.parse(name), CIFAR if channels == 3 else GREY
    samples = torch.arange(40).repeat(4)
    ids = torch.from_numpy(space.view_ids(samples.numpy(), np.arange(160) % space.size))
    usual = Renderer(images, space, normal, accelerator="none").render(samples, ids)
    fast = Renderer(images, space, normal, accelerator="numba").render(samples, ids)
    assert torch.equal(usual.view(torch.int32), fast.view(torch.int32))
    assert fast.stride() == usual.stride()


def test_a_short_run_never_loads_numba() -> None:
    """Rendering a little, as every test and every small command does, leaves numba where it is."""
    program = (
        "import sys, numpy as np, torch; from bancache.views import ViewSpace;"
        "from bancache.views.renderer import Normalization, Renderer;"
        "r = Renderer(np.zeros((2, 8, 8, 1), np.uint8), ViewSpace.parse('flip'), Normalization((0.0,), (1.0,)));"
        "r.render(torch.arange(2), torch.arange(2)); sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_long_run_changes_over_in_the_middle_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(compiled, "WORTH_AFTER_VIEWS", 50)
    images = np.random.default_rng(4).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    space, samples = ViewSpace.parse("crop1-flip"), torch.arange(30)
    long = Renderer(images, space, GREY)
    usual = Renderer(images, space, GREY, accelerator="none")
    shown = []
    for view in range(4):
        shown.append(long.accelerated)
        assert torch.equal(
            long.render(samples, samples * 0 + view), usual.render(samples, samples * 0 + view)
        )
    assert shown == [False, False, True, True]


@pytest.mark.parametrize("accelerator", ["none", "numba"])
@pytest.mark.parametrize("sample", [-1, 3, 2**40])
def test_images_that_are_not_there_are_refused(accelerator: Accelerator, sample: int) -> None:
    if accelerator == "numba":
        pytest.importorskip("numba")
    space = ViewSpace.parse("crop1-zero")
    renderer = Renderer(np.zeros((3, 8, 8, 1), np.uint8), space, GREY, accelerator=accelerator)
    with pytest.raises(IndexError):
        renderer.render(torch.tensor([0, sample]), torch.tensor([8, 8]))
    assert renderer.render(torch.tensor([2]), torch.tensor([8])).shape == (1, 1, 8, 8)


def test_without_numba_everything_goes_on_and_asking_for_it_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(compiled, "WORTH_AFTER_VIEWS", 0)
    images = np.zeros((3, 8, 8, 1), np.uint8)
    renderer = Renderer(images, ViewSpace.parse("flip"), GREY)
    assert not renderer.accelerated
    assert renderer.render(torch.arange(3), torch.arange(3) % 2).shape == (3, 1, 8, 8)
    with pytest.raises(UsageError, match="numba is not installed"):
        Renderer(images, ViewSpace.parse("flip"), GREY, accelerator="numba")
