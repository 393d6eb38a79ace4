"""Training from an exhaustive cache agrees with online distillation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contracts.tiny import CPU, RECIPE, dump_tiny

from bancache.cache.reader import Cache
from bancache.models.teacher import OnlineTargets, Teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training import TrainerOptions, run_for_cache, train


@pytest.fixture(scope="module")
def dumped(
    tmp_path_factory: pytest.TempPathFactory, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> tuple[Cache, Teacher]:
    """A cache of all views, and its teacher."""
    out = tmp_path_factory.mktemp("dumped") / "all.zarr"
    result, teacher = dump_tiny(teacher_path, spec, data, out, num_views=18, encoding="float32")
    return result.cache, teacher


@pytest.mark.parametrize("loss", ["ban-l", "ban", "kd", "cwtm", "dkpp"])
def test_loss_curves_agree_to_1e_4(
    tmp_path: Path,
    dumped: tuple[Cache, Teacher],
    spec: DataSpec,
    data: ImageSet,
    held_out: ImageSet,
    loss: str,
) -> None:
    """Two epochs, step by step saved: float32 cache against teacher online, relative difference of each epoch."""
    cache, teacher = dumped
    temperature = 4.0 if loss == "kd" else 1.0
    recipe = replace(RECIPE, epochs=2, loss=loss, temperature=temperature)
    run = run_for_cache(teacher.architecture, recipe, 3, spec, data, cache)
    cached = train(run, data, held_out, TrainerOptions(tmp_path / "cached.pt", CPU), cache=cache)
    online = train(
        run,
        data,
        held_out,
        TrainerOptions(tmp_path / "online.pt", CPU),
        cache=cache,
        targets=OnlineTargets(teacher, temperature=temperature),
    )
    for one, other in zip(
        cached.checkpoint.header["history"], online.checkpoint.header["history"], strict=True
    ):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["test_accuracy"] == other["test_accuracy"]
    for name, weights in cached.checkpoint.state.items():
        torch.testing.assert_close(weights, online.checkpoint.state[name], rtol=1e-3, atol=1e-5)
