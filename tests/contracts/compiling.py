"""Compiles triton kernels for GPUs that are not here, and counts what their machine code does."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# A100 and H100 or H200.
CAPABILITIES = (80, 90)
_SASS = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\d+\s+)?([A-Z0-9_.]+)", re.MULTILINE)

_PTX = {
    r"\bfma\.": "FFMA",
    r"\bmul(?:\.ftz|\.rn)*\.f32": "FMUL",
    r"\bst\.global\.v4\.b32": "STG.E.128",
    r"\bst\.global\.(?!v4\.b32)": "STG",
    r"\bex2\.": "MUFU",
    r"\b(?:ld|st)\.local": "LDL",
}


@dataclass(frozen=True)
class Code:
    """What a kernel became.

    Attributes:
        opcodes: How often each instruction occurs.
        stack: Bytes of memory a thread needs beside its registers.
        registers: A thread's.
    """

    opcodes: Counter[str]
    stack: int
    registers: int

    def count(self, pattern: str) -> int:
        """How many instructions match."""
        return sum(times for name, times in self.opcodes.items() if re.match(pattern, name))


def machine_code(
    kernel: Callable[..., Any],
    capability: int,
    pointers: dict[str, str],
    scalars: dict[str, str],
    constants: dict[str, Any],
    *,
    warps: int,
    folder: Path,
) -> Code:
    """Compile a kernel ahead of time and take it apart.

    Args:
        kernel: A function in triton's language.
        capability: 80 or 90.
        pointers: Their types, such as ``*u8``; all are aligned as torch aligns memory.
        scalars: Theirs.
        constants: What is known when compiling.
        warps: Of a program.
        folder: For the machine code.
    """
    triton = pytest.importorskip("triton", reason="kernels are compiled by triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    if not (bundled / "ptxas").exists():
        pytest.skip("this triton comes without ptxas, so nothing can be compiled for a GPU that is not here")
    function = triton.jit(kernel)
    names = list(function.arg_names)
    types = pointers | scalars | dict.fromkeys(constants, "constexpr")
    source = ASTSource(
        function,
        {name: types[name] for name in names},
        constants,
        {(names.index(name),): [["tt.divisibility", 16]] for name in pointers},
    )
    # The compiler may fuse what it can: a kernel that must not be fused has to leave it nothing.
    options = {"num_warps": warps, "enable_fp_fusion": True}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    binary = folder / f"{kernel.__name__}.cubin"
    binary.write_bytes(compiled.asm["cubin"])
    if not all((bundled / tool).exists() for tool in ("nvdisasm", "cuobjdump")):
        # Without a disassembler the last step before machine code has to do; it names no spills.
        return Code(Counter(_sass_names(compiled.asm["ptx"])), 0, 0)
    usage = _said(bundled / "cuobjdump", "-res-usage", binary)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, usage
    opcodes = _SASS.findall(_said(bundled / "nvdisasm", "-c", binary))
    return Code(Counter(opcodes), int(found[2]), int(found[1]))


def _sass_names(ptx: str) -> list[str]:
    """Return the instructions of intermediate code that tests ask for, by the names that machine code has."""
    return [name for pattern, name in _PTX.items() for _ in re.findall(pattern, ptx)]


def _said(tool: Path, *arguments: object) -> str:
    done = subprocess.run([str(tool), *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stdout
