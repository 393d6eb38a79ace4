"""Lines of memory are asked for by the processor's own instruction, which changes nothing that a program can see."""

from __future__ import annotations

import importlib

import numpy as np
import pytest


def test_it_becomes_an_instruction_and_reads_nothing() -> None:
    pytest.importorskip("numba")
    prefetch = importlib.import_module("bancache.system.cpu_prefetch").prefetch
    numba = importlib.import_module("numba")

    @numba.njit  # type: ignore[untyped-decorator]
    def ask(array: object, index: int) -> None:
        prefetch(array, index)

    few = np.arange(3, dtype=np.int16)
    for index in (0, 2, -1, 3, 1 << 40):
        ask(few, index)
    assert few.tolist() == [0, 1, 2]
    assert all("prefetch" in code or "prfm" in code for code in ask.inspect_asm().values())
