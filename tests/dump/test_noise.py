"""What a teacher differs from itself by when it rounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.tiny import CPU, dump_tiny, settings

from bancache.dump.noise import noise_floor
from bancache.sources.base import ImageSet
from bancache.sources.spec import DataSpec
from bancache.teacher import Teacher, load_teacher
from bancache.views.apply import Renderer

WHO = np.arange(32), np.zeros(32, np.int64)


class Refuses(torch.nn.Module):
    """Runs in float32 alone, as a net with an operation that has no other kernel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            raise NotImplementedError("no kernel for bfloat16")
        return images.mean(dim=(2, 3))


class Overflows(Refuses):
    """Answers infinity when it rounds."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)) / (0.0 if torch.is_autocast_enabled("cpu") else 1.0)


def renderer(teacher: Teacher, data: ImageSet) -> Renderer:
    chosen = settings(teacher)
    return Renderer(data.images, chosen.space, chosen.normalisation)


def test_it_is_the_divergence_of_bfloat16_from_float32(teacher_path: Path, data: ImageSet) -> None:
    """Computed here from the two answers; the same whichever precision the teacher is used in."""
    teacher = load_teacher(str(teacher_path), device=CPU)
    images = renderer(teacher, data)
    found = noise_floor(teacher, images, *WHO)
    assert found is not None
    views = images.render(*(torch.from_numpy(numbers) for numbers in WHO))
    exact = teacher.logits(views).double()
    rounded = replace(teacher, precision="bfloat16").logits(views).double()
    for temperature, floor in found.items():
        log_p = torch.log_softmax(exact / float(temperature), dim=1)
        log_q = torch.log_softmax(rounded / float(temperature), dim=1)
        kl = (log_p.exp() * (log_p - log_q)).sum(dim=1)
        assert floor["kl_mean"] == pytest.approx(float(kl.mean()), rel=1e-3)
        assert floor["kl_max"] == pytest.approx(float(kl.max()), rel=1e-3)
        assert 0 < floor["kl_mean"] < floor["kl_max"]
    assert noise_floor(replace(teacher, precision="bfloat16"), images, *WHO) == found


@pytest.mark.parametrize("net", [Refuses(), Overflows()])
def test_a_net_that_does_not_round_has_none(net: torch.nn.Module, teacher_path: Path, data: ImageSet) -> None:
    teacher = load_teacher(str(teacher_path), device=CPU)
    other = replace(teacher, model=net)
    assert noise_floor(other, renderer(teacher, data), *WHO) is None


def test_a_cache_states_it(tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet) -> None:
    """Of the first batch of slot 0, beside the fidelity."""
    result, teacher = dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr")
    who = np.arange(32)
    views = settings(teacher).space.view_ids(who, 0)
    assert result.cache.summary["noise_floor"] == noise_floor(teacher, renderer(teacher, data), who, views)
    assert set(result.cache.summary["fidelity"]["1"]) >= {"kl_mean", "gradient_error"}
