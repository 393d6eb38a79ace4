"""The kernel gives the bits of ``renderer.LatticeRenderer``, and its machine code has nothing that could change them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.compiling import CAPABILITIES, machine_code
from contracts.interpreting import Arrays, Interpreter
from contracts.view_kernel import CASES, DTYPES, bits, case

from bancache.errors import UsageError
from bancache.views import Lattice
from bancache.views.factory import choose_renderer, resident_bytes
from bancache.views.lattice_renderer import LatticeRenderer
from bancache.views.model_input import Normalization
from bancache.views.triton_renderer import SIZE, WARPS, TritonRenderer, view_kernel

OUT = {"float32": "*fp32", "float16": "*fp16", "bfloat16": "*bf16", "uint8": "*u8"}


@pytest.fixture(scope="module")
def shown(interpreter: Interpreter) -> Arrays:
    """The interpreted kernel's output for every case."""
    return interpreter.run("view_kernel")


@pytest.mark.parametrize("name", CASES)
def test_pixels_and_float32_are_the_references_bits(shown: Arrays, name: str) -> None:
    given = case(name)
    reference = LatticeRenderer(given.images, given.space, given.normalization)
    np.testing.assert_array_equal(shown[f"{name} pixels"], bits(reference.pixels(given.samples, given.views)))
    rendered = reference.render(given.samples, given.views)
    np.testing.assert_array_equal(shown[f"{name} torch.float32"], bits(rendered))
    assert str(shown[f"{name} golden"]) == reference.golden(1)


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("name", CASES)
def test_sixteen_bits_are_the_references_rounded_to_nearest_even(
    shown: Arrays, name: str, dtype: torch.dtype
) -> None:
    given = case(name)
    rendered = LatticeRenderer(given.images, given.space, given.normalization).render(
        given.samples, given.views
    )
    np.testing.assert_array_equal(shown[f"{name} {dtype}"], bits(rendered.to(dtype)))


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(
    ("kind", "reflect"), [("bfloat16", True), ("bfloat16", False), ("float16", True), ("float32", True)]
)
def test_compiled_it_fuses_nothing_spills_nothing_and_stores_16_bytes_at_a_time(
    kind: str, reflect: bool, capability: int, tmp_path: Path
) -> None:
    """A fused multiply-add would be another float than the reference's; the compiler may use one and finds none."""
    code = machine_code(
        view_kernel,
        capability,
        {"images": "*u8", "samples": "*i64", "views": "*i64", "out": OUT[kind]},
        {f"{name}{channel}": "fp32" for name in ("mean", "scale") for channel in range(4)},
        {
            "HEIGHT": 32,
            "WIDTH": 32,
            "CHANNELS": 3,
            "PAD": 4,
            "REFLECT": reflect,
            "KIND": kind,
            "SIZE": SIZE,
        },
        warps=WARPS,
        folder=tmp_path,
    )
    assert code.count(r"FFMA|HFMA|DFMA") == 0
    assert code.count("FMUL") == 8, "one product for each of a thread's outputs"
    assert code.stack == 0
    assert code.count(r"LDL|STL") == 0
    assert code.count(r"STG\.E\.128") == (2 if kind == "float32" else 1)
    assert code.count("STG") == code.count(r"STG\.E\.128")
    # So that 48 of a multiprocessor's 64 warps have room; and no selects for channels that there are not.
    assert code.registers <= 40
    assert code.count("FSEL") <= 32


@pytest.mark.parametrize("name", CASES)
def test_a_cpu_renders_without_the_kernel_and_its_memory_is_known_before(name: str) -> None:
    given = case(name)
    chosen = choose_renderer(given.images, given.space, given.normalization, device="cpu")
    assert type(chosen) is LatticeRenderer
    count, height, width, channels = CASES[name]
    pad = 2 * given.space.pad
    padded = (1 + given.space.flip) * count * (height + pad) * (width + pad) * channels
    assert resident_bytes(given.images, given.space, torch.device("cpu")) == padded
    if find_spec("triton") is not None:  # the kernel keeps the images as they are
        assert resident_bytes(given.images, given.space, torch.device("cuda")) == given.images.nbytes


def test_a_cpu_without_the_interpreter_is_refused() -> None:
    images = np.zeros((1, 4, 4, 3), np.uint8)
    normalization = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    with pytest.raises(UsageError, match="'cpu'"):
        TritonRenderer(images, Lattice(), normalization, device="cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu_it_gives_the_references_bits(name: str) -> None:
    given = case(name)
    reference = LatticeRenderer(given.images, given.space, given.normalization)
    rendered = reference.render(given.samples, given.views)
    address = given.samples.cuda(), given.views.cuda()
    for dtype in DTYPES:
        kernel = TritonRenderer(given.images, given.space, given.normalization, device="cuda", dtype=dtype)
        np.testing.assert_array_equal(bits(kernel.render(*address).cpu()), bits(rendered.to(dtype)))
    np.testing.assert_array_equal(
        bits(kernel.pixels(*address).cpu()), bits(reference.pixels(given.samples, given.views))
    )
