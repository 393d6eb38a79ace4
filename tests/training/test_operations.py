"""What a step does beside the forward and backward pass of its model: on a GPU each operation is a launch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from contracts.crossing import Operations, as_if_on_a_gpu
from contracts.tiny import CPU, RECIPE, architecture

from bancache.loader import Batch
from bancache.losses import fused as fused_loss
from bancache.losses import triton_kernel
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training import TrainerOptions, run_for_labels
from bancache.training import step as steps
from bancache.training.build import make_model, make_optimizer
from bancache.training.state import TrainState

SAMPLES = np.arange(16)


def launch(logits: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Stand in for the kernel of loss and gradient, which a CPU cannot launch."""
    return torch.zeros(len(logits)), torch.zeros_like(logits)


@pytest.mark.parametrize(
    ("loss", "fused", "bound"),
    [("labels", False, 18), ("ban-l", True, 15), ("kd", True, 15), ("ban-l", False, 42), ("kd", False, 50)],
)
def test_operations_beside_forward_backward_and_optimizer(
    monkeypatch: pytest.MonkeyPatch, spec: DataSpec, data: ImageSet, loss: str, fused: bool, bound: int
) -> None:
    taught = {} if loss == "labels" else {"loss": loss, "temperature": 4.0 if loss == "kd" else 1.0}
    recipe = replace(RECIPE, **taught)  # type: ignore[arg-type]
    run = run_for_labels(architecture(), recipe, 0, spec, data, "crop1-flip")
    model = make_model(run, TrainerOptions("a.pt", CPU))
    state = TrainState(model, make_optimizer(model, recipe))
    images, labels = torch.zeros(16, 3, 10, 10), torch.zeros(16, dtype=torch.int64)
    targets = None if loss == "labels" else torch.full((16, 3), 1 / 3)
    batch = Batch(images, labels, targets, SAMPLES, SAMPLES, torch.from_numpy(SAMPLES))
    for module in (fused_loss, steps):
        monkeypatch.setattr(module, "kernel_serves", lambda logits: fused)
    monkeypatch.setattr(triton_kernel, "launch", launch)
    step = steps.Step(run, model, state)
    step(batch)  # the optimizer makes its buffers
    with Operations() as alone:
        logits = model(images)
        state.optimizer.zero_grad(set_to_none=True)
        logits.backward(torch.zeros_like(logits))
        state.optimizer.step()
    with Operations() as whole:
        step(batch)
    assert 0 < whole.count - alone.count <= bound


def test_no_loss_of_a_student_copies_anything_from_the_host(
    monkeypatch: pytest.MonkeyPatch, spec: DataSpec, data: ImageSet
) -> None:
    for loss in ("ban-l", "ban", "kd", "cwtm", "dkpp"):
        run = run_for_labels(architecture(), replace(RECIPE, loss=loss), 0, spec, data, "crop1-flip")
        with as_if_on_a_gpu(monkeypatch) as operations:
            rows = torch.zeros(16, dtype=torch.int64, device="cuda")
            logits, targets = (torch.zeros(16, 3, device="cuda") for _ in range(2))
            batch = Batch(logits, rows, targets, SAMPLES, SAMPLES, rows)
            loss_of_batch = steps.objective(run, logits, batch, torch.zeros_like(rows[0]))
        assert loss_of_batch.device.type == "cuda"
        assert operations.crossing == [], loss
