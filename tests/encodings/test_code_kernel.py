"""The kernel that encodes and measures rows of logits, against its twin in torch; and its machine code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.code_kernel import CASES, FINITE, ROWS, encoding, rows
from contracts.compiling import CAPABILITIES, machine_code
from contracts.interpreting import Arrays, Interpreter

from bancache.encodings.fidelity import FIGURES, MEASURED, SERIES_TO
from bancache.encodings.measuring import all_figures
from bancache.encodings.triton_kernel import MAX_CLASSES, code_kernel, warps_for

KL, AGREE, WRONG, SCALE = 0, 1, 2, 3


@pytest.fixture(scope="module")
def found(interpreter: Interpreter) -> Arrays:
    """Codes and figures of every case, from the interpreted kernel."""
    return interpreter.run("code_kernel")


@pytest.mark.parametrize("name", CASES)
def test_it_stores_the_nearest_level(found: Arrays, name: str) -> None:
    """Within half a step of the exact value, up to the rounding of an exponential, and at once the twin's bytes."""
    code, (logits, _) = encoding(*CASES[name]), rows(CASES[name][1])
    kept = found[f"{name}: codes"][:FINITE]
    z = logits[:FINITE].numpy().astype(np.float64)
    exact = np.exp((z - z.max(axis=1, keepdims=True)) / code.root) * (code.levels - 1)
    assert np.abs(kept - exact).max() <= 0.5 + 1e-6 * code.levels
    twin = code.encode(logits[:FINITE])["q"].numpy()
    assert kept.dtype == twin.dtype
    # Elsewhere than on a GPU the exponentials are not the same; they decide a tie of two levels differently.
    assert (kept != twin).mean() < 1e-3


@pytest.mark.parametrize("name", CASES)
def test_its_figures_are_those_of_the_twin(found: Arrays, name: str) -> None:
    code, (logits, labels) = encoding(*CASES[name]), rows(CASES[name][1])
    kept = {"q": torch.from_numpy(found[f"{name}: codes"])}
    twin = all_figures(code, logits, kept, labels).numpy()
    mine = found[f"{name}: figures"]
    assert mine.shape == (ROWS, MEASURED)
    for turn in range(3):
        part, other = (each[:FINITE, 4 * turn : 4 * turn + 4] for each in (mine, twin))
        np.testing.assert_allclose(part[:, KL], other[:, KL], rtol=2e-3, atol=1e-9)
        np.testing.assert_array_equal(part[:, AGREE], other[:, AGREE])
        # A difference of two float32 is as exact as they are.
        np.testing.assert_allclose(np.sqrt(part[:, WRONG]), np.sqrt(other[:, WRONG]), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(part[:, SCALE], other[:, SCALE], rtol=1e-5, atol=1e-7)
    right, confidence, broken = mine[:, FIGURES:].T
    np.testing.assert_array_equal(right[:FINITE], twin[:FINITE, FIGURES])
    np.testing.assert_allclose(confidence[:FINITE], twin[:FINITE, FIGURES + 1], rtol=1e-6)
    assert broken.tolist() == [0] * FINITE + [1, 2, 1]


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(
    ("codes", "repeat", "size"),
    [("*u8", 1, 128), ("*u8", 3, 1024), ("*i16", 0, 1024), ("*u8", 1, MAX_CLASSES), ("*i16", 0, MAX_CLASSES)],
)
def test_compiled_it_stays_in_registers(
    codes: str, repeat: int, size: int, capability: int, tmp_path: Path
) -> None:
    floats = ("inverse", "top_level", "zero", "quarter", "uniform")
    code = machine_code(
        code_kernel,
        capability,
        {"logits": "*fp32", "labels": "*i64", "codes": codes, "figures": "*fp32"},
        {"classes": "i32"} | dict.fromkeys(floats, "fp32"),
        {
            "REPEAT": repeat,
            "LIBRARY": True,
            "ROUNDER": 12582912.0,
            "SERIES_TO": SERIES_TO,
            "WIDTH": MEASURED,
            "SIZE": size,
        },
        warps=warps_for(size),
        folder=tmp_path,
    )
    assert code.count("MUFU") > 0, "it takes exponentials"
    # With the most classes a few numbers of a thread lie beside its registers.
    assert code.stack <= (32 if size == MAX_CLASSES else 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu_its_codes_are_the_bytes_of_the_twin(name: str) -> None:
    from bancache.encodings.triton_kernel import launch

    code, classes = encoding(*CASES[name]), CASES[name][1]
    generator = torch.Generator("cuda").manual_seed(0)
    logits = 3 * torch.randn(100_000, classes, device="cuda", generator=generator)
    logits[::7] *= 5
    labels = torch.randint(0, classes, (len(logits),), device="cuda", generator=generator)
    fields, figures = launch(code, logits, labels)
    twin = code.encode(logits)
    assert torch.equal(fields["q"], twin["q"])
    means, others = (each.double().mean(dim=0) for each in (figures, all_figures(code, logits, twin, labels)))
    torch.testing.assert_close(means, others, rtol=1e-3, atol=1e-9)
