"""The noise floor is the divergence of a teacher from itself in another precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.tiny import CPU, dump_tiny, settings

from bancache.dumping.forward import noise_floor
from bancache.models.teacher import Teacher, load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.views.factory import choose_renderer


class Refuses(torch.nn.Module):
    """A model that runs in float32 only, like one with an operation that has no other kernel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            raise NotImplementedError("no kernel for bfloat16")
        return images.mean(dim=(2, 3))


class Overflows(Refuses):
    """A model with infinite logits in bfloat16."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)) / (0.0 if torch.is_autocast_enabled("cpu") else 1.0)


def shown(teacher: Teacher, data: ImageSet, view_index: int | None = None) -> torch.Tensor:
    """Return the first images: in view 0, or as a view index has them."""
    chosen, samples = settings(teacher), np.arange(32)
    views = np.zeros(32, np.int64) if view_index is None else chosen.space.view_ids(samples, view_index)
    renderer = choose_renderer(data.images, chosen.space, chosen.normalization)
    return renderer.render(torch.from_numpy(samples), torch.from_numpy(views))


def test_it_is_the_divergence_of_bfloat16_from_float32(teacher_path: Path, data: ImageSet) -> None:
    """Computed here from both logits; the same whichever precision the teacher is used in."""
    teacher = load_teacher(str(teacher_path), device=CPU)
    views, rounding = shown(teacher, data), replace(teacher, precision="bfloat16")
    found = noise_floor(teacher, views, teacher.logits(views))
    assert found is not None
    exact, rounded = teacher.logits(views).double(), rounding.logits(views).double()
    for temperature, floor in found.items():
        log_p = torch.log_softmax(exact / float(temperature), dim=1)
        log_q = torch.log_softmax(rounded / float(temperature), dim=1)
        kl = (log_p.exp() * (log_p - log_q)).sum(dim=1)
        assert floor["kl_mean"] == pytest.approx(float(kl.mean()), rel=1e-3)
        assert floor["kl_max"] == pytest.approx(float(kl.max()), rel=1e-3)
        assert 0 < floor["kl_mean"] < floor["kl_max"]
    assert noise_floor(rounding, views, rounding.logits(views)) == found


@pytest.mark.parametrize("net", [Refuses(), Overflows()])
def test_a_model_that_does_not_run_in_both_precisions_has_none(
    net: torch.nn.Module, teacher_path: Path, data: ImageSet
) -> None:
    teacher = load_teacher(str(teacher_path), device=CPU)
    other, views = replace(teacher, model=net), shown(teacher, data)
    assert noise_floor(other, views, other.logits(views)) is None


def test_a_cache_records_it(tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet) -> None:
    """For the first batch of view 0, beside the fidelity."""
    result, teacher = dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr")
    views = shown(teacher, data, view_index=0)
    assert result.cache.summary["noise_floor"] == noise_floor(teacher, views, teacher.logits(views))
    assert set(result.cache.summary["fidelity"]["1"]) >= {"kl_mean", "gradient_error"}
