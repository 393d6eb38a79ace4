"""`bancache plan` and `--max-kl`: size and loss are known before, and held to afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from contracts.tiny import CPU, settings

from bancache.cache.info import describe
from bancache.dump import dump
from bancache.encodings import KNOWN
from bancache.errors import UsageError
from bancache.sources.base import ImageSet
from bancache.sources.spec import DataSpec
from bancache.teacher import load_teacher
from bancache_cli import main


def test_plan_weighs_every_encoding_and_counts_what_a_dump_pays(
    teacher_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--teacher", str(teacher_path), "--num-views", "all", "--json", "-q"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["views"], answer["entries"], answer["probed"]) == (18, 18 * 96, 96)
    assert (answer["epochs"], answer["break_even_students"]) == (4, 4.5)
    assert {row["encoding"] for row in answer["encodings"]} == set(KNOWN)
    for row in answer["encodings"]:
        assert row["bytes"] == round(row["bytes_per_entry"] * 18 * 96)
        # Of three classes topk-10 keeps all, one whole number a class.
        whole_numbers = row["encoding"].startswith(("root", "topk")) or row["encoding"] in (
            "int8",
            "bfloat16",
        )
        assert (row["compact_bytes"] is not None) == whole_numbers
    assert main(["plan", "--teacher", str(teacher_path), "-q"]) == 0
    assert "root2-64" in capsys.readouterr().out


def test_a_bound_chooses_the_smallest_encoding_that_keeps_it(tmp_path: Path, teacher_path: Path) -> None:
    found = {}
    for bound in ("1", "1e-5", "1e-8"):
        out = tmp_path / f"{bound}.zarr"
        args = ["dump", "--teacher", str(teacher_path), "--out", str(out), "--max-kl", bound, "-q"]
        assert main(args) == 0
        about = describe(out)
        assert about["fidelity"]["1"]["kl_mean"] <= float(bound)
        found[bound] = (about["encoding"]["name"], about["bytes"])
    assert found["1"][0] == "root2-64"
    assert found["1e-8"][0] in ("float16", "float32", "topk-10")
    assert found["1"][1] < found["1e-5"][1] < found["1e-8"][1]


def test_a_bound_that_is_broken_leaves_the_cache_incomplete(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    """The probe may have been lucky; the whole dump is what counts."""
    teacher = load_teacher(str(teacher_path), device=CPU)
    chosen = settings(teacher, encoding="root2-64", bound=(1.0, 1e-9))
    with pytest.raises(
        UsageError, match=r"'root2-64' lost \S+ nats at temperature 1, more than the 1e-09 allowed"
    ):
        dump(teacher, data, spec, tmp_path / "a.zarr", chosen, device=CPU)
    assert describe(tmp_path / "a.zarr")["complete"] is False


def test_an_encoding_and_a_bound_exclude_each_other(
    tmp_path: Path, teacher_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["dump", "--teacher", str(teacher_path), "--out", str(tmp_path / "a.zarr")]
    assert main([*args, "--encoding", "root4", "--max-kl", "1e-3"]) == UsageError.exit_code
    assert "error: --max-kl chooses the encoding" in capsys.readouterr().err
