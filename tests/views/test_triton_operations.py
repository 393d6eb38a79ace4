"""The kernels give torch's bits, and their machine code has nothing that could change them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.compiling import CAPABILITIES, Code, machine_code
from contracts.interpreting import Arrays, Interpreter
from contracts.operating import SHAPES
from contracts.triton_operations import DTYPES, bits, few, large, shown, some

from bancache.views import torch_operations, triton_operations
from bancache.views.triton_operations import SIZE, WARPS

OUT = {"float32": "*fp32", "float16": "*fp16", "bfloat16": "*bf16", "uint8": "*u8"}
SIDES = {"HEIGHT": 224, "WIDTH": 224}


def expected() -> Arrays:
    views, drawn = (torch.from_numpy(part) for part in large())
    found: Arrays = {"large": torch_operations.apply(views, drawn).numpy()}
    for kind in SHAPES:
        views, drawn = (torch.from_numpy(part) for part in some(kind))
        found[f"{kind} operations"] = torch_operations.apply(views, drawn).numpy()
        case = few(kind)
        erased = torch_operations.erase(case["views"], case["boxes"], case["fill"])
        partners = torch_operations.erase(case["partners"], case["partner_boxes"], case["partner_fill"])
        mixed = torch_operations.mix(erased, partners, case["share"], case["cut"])
        for dtype in DTYPES[:-1]:
            rendered = ((mixed.float() - case["mean"]) * case["scale"]).to(dtype)
            found[f"{kind} {dtype}"] = bits(rendered.permute(0, 3, 1, 2))
        found[f"{kind} torch.uint8"] = bits(mixed.permute(0, 3, 1, 2))
        found[f"{kind} erased"] = bits(erased.permute(0, 3, 1, 2))
    return found


def assert_same(found: Arrays) -> None:
    wanted = expected()
    assert set(found) == set(wanted)
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], name)


def test_interpreted_the_kernels_give_torchs_bits(interpreter: Interpreter) -> None:
    assert_same(interpreter.run("triton_operations"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_on_a_gpu_the_kernels_give_torchs_bits() -> None:
    assert_same(shown("cuda"))


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "uint8"])
def test_compiled_the_last_kernel_fuses_nothing_and_spills_nothing(
    kind: str, capability: int, tmp_path: Path
) -> None:
    """A fused multiply-add would be another float than torch's; the compiler may use one and finds none."""
    code = machine_code(
        triton_operations.finish_kernel,
        capability,
        {
            **dict.fromkeys(("views", "partners"), "*u8"),
            **dict.fromkeys(("erased", "partners_erased", "mixing"), "*i32"),
            "out": OUT[kind],
        },
        {
            "distance": "i32",
            **{f"{name}{channel}": "fp32" for name in ("mean", "scale") for channel in range(3)},
        },
        {**SIDES, "CHANNELS": 3, "MIXED": True, "KIND": kind, "SIZE": SIZE},
        warps=WARPS,
        folder=tmp_path,
    )
    assert code.count(r"FFMA|HFMA2?\.(?!MMA)|DFMA") == 0
    assert code.count("FMUL") == (0 if kind == "uint8" else SIZE // (32 * WARPS))
    assert_lean(code)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_compiled_the_kernels_for_operations_spill_nothing(capability: int, tmp_path: Path) -> None:
    rows = {"views": "*u8", "operations": "*i32", "tables": "*u8"}
    apply_code = machine_code(
        triton_operations.apply_kernel,
        capability,
        {**rows, "turns": "*i32", "out": "*u8"},
        {"distance": "i32"},
        {**SIDES, "CHANNELS": 3, "SIZE": SIZE},
        warps=WARPS,
        folder=tmp_path,
    )
    tables_code = machine_code(
        triton_operations.tables_kernel,
        capability,
        rows,
        {"distance": "i32"},
        {"PIXELS": 224 * 224, "CHANNELS": 3, "SIZE": SIZE},
        warps=WARPS,
        folder=tmp_path,
    )
    assert_lean(apply_code)
    assert_lean(tables_code)


def assert_lean(code: Code) -> None:
    assert code.stack == 0
    assert code.count(r"LDL|STL") == 0
    assert code.registers <= 128
