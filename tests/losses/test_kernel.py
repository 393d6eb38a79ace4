"""Loss and gradient, by the kernel and by its reference, against double precision; and the kernel's machine code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.compiling import CAPABILITIES, machine_code
from contracts.interpreting import Arrays, Interpreter
from contracts.loss_kernel import CASES, Case, case
from numpy.typing import NDArray

from bancache import losses
from bancache.encodings.root import Root
from bancache.losses.fused import distil
from bancache.losses.reference import loss_and_gradient
from bancache.losses.triton_kernel import MAX_CLASSES, loss_kernel, warps_for
from bancache.losses.weights import Codes, Labels, MixedLabels, loss_weights

CLOSE = 1e-6


@pytest.fixture(scope="module")
def found(interpreter: Interpreter) -> Arrays:
    """Losses and gradients of every case, from the interpreted kernel."""
    return interpreter.run("loss_kernel")


def exact(given: Case) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return losses (B,) and the gradient of their mean (B, C) in float64, row by row from the definitions."""
    weights, found, slopes = given.weights, [], []
    for row in range(len(given.logits)):
        if isinstance(given.targets, Codes):
            steps = given.targets.q[given.samples[row]].numpy().astype(np.float64)
            power = np.where(steps > 0, steps, 0.25) ** (given.targets.root / weights.temperature)
            t = power / power.sum()
        else:
            t = given.targets[row].numpy().astype(np.float64)
        z, known = given.logits[row].numpy().astype(np.float64), shares(given.labels, row, len(t))
        p, q = softmax(z), softmax(z / weights.temperature)
        entropy = -sum(float(x) * np.log(x) for x in t if x > 0) if weights.divergence else 0.0
        found.append(
            -weights.hard * (known * np.log(p)).sum() + weights.soft * (-(t * np.log(q)).sum() - entropy)
        )
        slope = weights.hard * (p - known) + weights.soft / weights.temperature * (q * t.sum() - t)
        slopes.append(slope / len(given.logits))
    return np.array(found), np.array(slopes)


def shares(labels: Labels, row: int, classes: int) -> NDArray[np.float64]:
    """Return how much of a row's label each class has, (C,)."""
    found = np.zeros(classes)
    if isinstance(labels, MixedLabels):
        lam = float(labels.lam[row])
        found[int(labels.own[row])] = lam
        found[int(labels.partner[row])] += 1 - lam
    else:
        found[int(labels[row])] = 1
    return found


def softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    power: NDArray[np.float64] = np.exp(z - z.max())
    power /= power.sum()
    return power


def require_close(given: Case, rows: NDArray[Any], gradient: NDArray[Any]) -> None:
    expected, slopes = exact(given)
    assert abs(rows.mean(dtype=np.float64) / expected.mean() - 1) <= CLOSE
    assert np.linalg.norm(gradient - slopes) <= CLOSE * np.linalg.norm(slopes)


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_is_right_to_a_millionth(found: Arrays, name: str) -> None:
    require_close(case(name), found[f"{name}: losses"], found[f"{name}: gradient"])


@pytest.mark.parametrize("name", CASES)
def test_the_reference_is_right_to_a_millionth(name: str) -> None:
    given = case(name)
    targets = given.targets
    if isinstance(targets, Codes):
        targets = targets.probabilities(given.samples, given.weights.temperature)
    rows, gradient = loss_and_gradient(given.logits, targets, given.labels, given.weights)
    require_close(given, rows.numpy(), gradient.numpy())


@pytest.mark.parametrize("name", [name for name in CASES if "of 100" in name and "of 1000" not in name])
def test_autograd_gets_the_gradient_of_what_lies_above_too(name: str) -> None:
    given = case(name)
    logits = given.logits.clone().requires_grad_()
    loss = distil(logits, given.targets, given.samples, given.labels, given.weights)
    (3 * loss).backward()  # type: ignore[no-untyped-call]
    expected, slopes = exact(given)
    assert loss.item() == pytest.approx(expected.mean(), rel=CLOSE)
    assert logits.grad is not None
    assert np.linalg.norm(logits.grad.numpy() - 3 * slopes) <= CLOSE * np.linalg.norm(3 * slopes)


@pytest.mark.parametrize(("loss", "temperature"), [("ban", 1.0), ("ban-l", 1.0), ("kd", 4.0)])
def test_the_weights_of_a_name_give_the_public_loss_of_that_name(loss: str, temperature: float) -> None:
    """The same batch through the encoding's decoder and the public function gives the same value."""
    given = case("kd root8 at 4 of 100")
    assert isinstance(given.targets, Codes)
    rows = {"q": given.targets.q.index_select(0, given.samples)}
    decoded = Root(100, root=8).probabilities(rows, temperature)
    plain = {
        "ban": losses.ban(given.logits, decoded),
        "ban-l": losses.ban_l(given.logits, decoded, given.labels),
        "kd": losses.kd(given.logits, decoded, given.labels, temperature=temperature, alpha=0.7),
    }[loss]
    weights = loss_weights(loss, temperature=temperature, alpha=0.7)
    assert weights is not None
    fused = distil(given.logits, given.targets, given.samples, given.labels, weights)
    assert float(fused) == pytest.approx(float(plain), rel=1e-5)
    assert loss_weights("dkpp", temperature=1.0, alpha=0.7) is None


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(
    ("targets", "exponent", "cool", "mixed", "size"),
    [
        ("*u8", 4, True, False, 128),
        ("*u8", 2, False, False, 1024),
        ("*u8", 2, False, True, 1024),
        ("*i16", 0, False, False, 128),
        ("*fp32", 0, False, True, 128),
        ("*fp32", 0, False, False, MAX_CLASSES),
        ("*fp32", 0, False, True, MAX_CLASSES),
    ],
)
def test_compiled_it_spills_nothing(
    targets: str, exponent: int, cool: bool, mixed: bool, size: int, capability: int, tmp_path: Path
) -> None:
    floats = ("hard", "soft", "inverse", "share", "zero", "unit", "power")
    code = machine_code(
        loss_kernel,
        capability,
        {
            "logits": "*fp32",
            "targets": targets,
            "samples": "*i64",
            "labels": "*i64",
            "partners": "*i64",
            "lam": "*fp32",
            "losses": "*fp32",
            "gradient": "*fp32",
        },
        {"classes": "i32"} | dict.fromkeys(floats, "fp32"),
        {
            "ROOT": targets != "*fp32",
            "EXPONENT": exponent,
            "DIVERGENCE": not cool,
            "MIXED": mixed,
            "COOL": cool,
            "SIZE": size,
        },
        warps=warps_for(size),
        folder=tmp_path,
    )
    assert code.count("MUFU") > 0, "it takes exponentials"
    assert code.stack == 0
    assert code.count(r"LDL|STL") == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu_it_is_right_to_a_millionth(name: str) -> None:
    from bancache.losses.triton_kernel import launch

    there = case(name).to("cuda")
    rows, gradient = launch(there.logits, there.targets, there.samples, there.labels, there.weights)
    require_close(case(name), rows.cpu().numpy(), gradient.cpu().numpy())
