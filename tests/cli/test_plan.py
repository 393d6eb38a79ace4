"""`bancache plan` and `--max-kl`: size and loss are known before the dump, and checked after it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from contracts.tiny import CPU, settings

from bancache.cache.info import describe
from bancache.dumping import dump
from bancache.dumping.plan import Option
from bancache.encodings import KNOWN, parse_encoding
from bancache.errors import UsageError
from bancache.models.teacher import load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache_cli import main, measure


def test_plan_weighs_every_encoding_and_counts_what_a_dump_pays(
    teacher_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--teacher", str(teacher_path), "--num-views", "all", "--json", "-q"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["views"], facts["num_pairs"], facts["probed"]) == (18, 18 * 96, 96)
    assert (facts["epochs"], facts["break_even_students"]) == (4, 4.5)
    assert {row["encoding"] for row in facts["encodings"]} == set(KNOWN)
    assert set(facts["noise_floor"]) == {"1", "2", "4"}
    for row in facts["encodings"]:
        assert 0 <= row["fidelity"]["1"]["gradient_error"] < 0.2
        assert row["bytes"] == round(row["bytes_per_pair"] * 18 * 96)
        # Of three classes topk-10 keeps all, one whole number a class.
        whole_numbers = row["encoding"].startswith(("root", "topk")) or row["encoding"] in (
            "int8",
            "bfloat16",
        )
        assert (row["compact_bytes"] is not None) == whole_numbers
    other = ["plan", "--teacher", str(teacher_path), "--num-views", "all", "--epochs", "9", "--json", "-q"]
    assert main(other) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["epochs"], facts["break_even_students"]) == (9, 2.0)
    assert main(["plan", "--teacher", str(teacher_path), "-q"]) == 0
    shown = capsys.readouterr().out
    assert "root2-64" in shown
    assert "teacher, bf16" in shown


def test_a_compact_cache_stores_its_first_view_as_any_other_does() -> None:
    option = Option("root4", 10.0, {}, float("inf"), 4.0)
    row = measure._row(option, 100, 5)
    assert (row["bytes"], row["compact_bytes"], row["max_temperature"]) == (5000, 100 * (10 + 4 * 4), None)


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
    with pytest.raises(UsageError, match=r"'root2-64'.* 1,.* 1e-09 "):
        dump(teacher, data, spec, tmp_path / "a.zarr", chosen, device=CPU)
    assert describe(tmp_path / "a.zarr")["complete"] is False


def test_a_bound_holds_at_the_students_temperature(tmp_path: Path, teacher_path: Path) -> None:
    """At 3, which is not measured, the worse of 2 and 4 counts; encodings that are not made for 4 are not considered."""
    args = ["dump", "--teacher", str(teacher_path), "--max-kl", "1e-4", "--temperature", "3", "-q"]
    assert main([*args, "--out", str(tmp_path / "a.zarr")]) == 0
    about = describe(tmp_path / "a.zarr")
    assert max(about["fidelity"][t]["kl_mean"] for t in ("2", "4")) <= 1e-4
    assert parse_encoding(about["encoding"]["name"], 3).max_temperature >= 3


def test_a_bound_where_nothing_is_measured_is_refused(
    tmp_path: Path, teacher_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["dump", "--teacher", str(teacher_path), "--out", str(tmp_path / "a.zarr"), "-q"]
    assert main([*args, "--max-kl", "1e-3", "--temperature", "6"]) == UsageError.exit_code
    shown = capsys.readouterr().err
    assert "6" in shown
    assert "float32" in shown
    assert not (tmp_path / "a.zarr").exists()


def test_the_temperature_alone_chooses_the_default(
    tmp_path: Path, teacher_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And `info` says of the cache what its encoding costs a gradient, and what the teacher's own rounding does."""
    args = ["dump", "--teacher", str(teacher_path), "--out", str(tmp_path / "a.zarr"), "-q"]
    assert main([*args, "--temperature", "4"]) == 0
    assert describe(tmp_path / "a.zarr")["encoding"]["name"] == "root8"
    capsys.readouterr()
    assert main(["info", str(tmp_path / "a.zarr")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("gradient error ") == 3
    assert "noise floor" in shown


def test_a_bounded_dump_keeps_the_encoding_that_is_there(
    tmp_path: Path, teacher_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Going on never changes the encoding; a bound that the finished cache breaks is refused, --overwrite chooses anew."""
    out = tmp_path / "a.zarr"
    args = ["dump", "--teacher", str(teacher_path), "--out", str(out), "-q"]
    assert main([*args, "--encoding", "root4"]) == 0
    before = describe(out)
    assert main([*args, "--max-kl", "1e-2"]) == 0
    assert describe(out) == before
    assert main([*args, "--max-kl", "1e-8"]) == UsageError.exit_code
    assert "'root4'" in capsys.readouterr().err
    assert describe(out) == before
    assert main([*args, "--max-kl", "1e-8", "--overwrite"]) == 0
    assert describe(out)["fidelity"]["1"]["kl_mean"] <= 1e-8


def test_an_encoding_and_a_bound_exclude_each_other(
    tmp_path: Path, teacher_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["dump", "--teacher", str(teacher_path), "--out", str(tmp_path / "a.zarr")]
    assert main([*args, "--encoding", "root4", "--max-kl", "1e-3"]) == UsageError.exit_code
    assert "hint: leave out --encoding or --max-kl" in capsys.readouterr().err
