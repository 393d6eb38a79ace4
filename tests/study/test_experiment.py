"""docs/study.md shows the figures of the result lines, and its relations are computed as it says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from report.sample import control, control_ensemble, ensemble, run

from bancache.report.families import sort_families
from bancache.report.results import read_records
from benchmarks import loss_choice, study, view_count
from tools.marks import filled

ROOT = Path(__file__).parents[2]


def test_the_studys_figures_are_those_of_the_result_lines() -> None:
    """`python -m benchmarks.study` puts them there."""
    text = (ROOT / "docs" / "study.md").read_text()
    assert filled(text, study.blocks()) == text


def test_a_relation_is_counted_over_seeds_against_the_best_member_of_each() -> None:
    """Seed 0: 0.40 against 0.42, its best member BAN-2; seed 1: 0.45 against 0.44, its best member BAN-1."""
    records = [
        *(run(g, 0, e) for g, e in enumerate((0.50, 0.44, 0.42))),
        ensemble(2, 0, 0.40),
        *(run(g, 1, e) for g, e in enumerate((0.50, 0.44, 0.46))),
        ensemble(2, 1, 0.45),
        *(control(k, 0, e) for k, e in ((1, 0.48), (2, 0.47))),
        control(1, 0, 0.43, "weight-2"),
        control_ensemble(2, 0, 0.41),
    ]
    (family,) = sort_families(records)
    assert list(study.relations(family)) == [
        ["BAN-1 errs less than the baseline", "2 of 2", "-6.00"],
        [r"Ens\*2 errs less than its best member", "1 of 2", "-0.50"],
        ["BAN-1 errs less than labels-1", "1 of 1", "-4.00"],
        ["BAN-1 errs less than weight-2", "0 of 1", "+1.00"],
        [r"Ens\*2 errs less than Ctl\*2", "1 of 1", "-1.00"],
    ]


def test_a_comparison_goes_on_with_what_is_there_and_keeps_the_lines_of_whole_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.variants.RESULTS", tmp_path / "kept")
    monkeypatch.setattr(study, "RESULTS", tmp_path / "kept")
    out = tmp_path / "runs"
    argv = ["view_count", "--quick", "--out", str(out), "--save"]
    for seeds in ("0", "0,1"):
        monkeypatch.setattr(sys, "argv", [*argv, "--seeds", seeds])
        view_count.main()
    records = read_records(out / "results.jsonl")
    kinds = [(r["seed"], r["kind"], r.get("num_views")) for r in records]
    assert kinds == [
        (seed, *rest)
        for seed in (0, 1)
        for rest in (("run", None), ("dump", None), ("run", 1), ("dump", None), ("run", 2))
    ]
    assert read_records(tmp_path / "kept" / "view_count" / "results.jsonl") == records
    # A seed without all its students is not kept.
    (out / "results.jsonl").write_text("".join((out / "results.jsonl").read_text().splitlines(True)[:-1]))
    monkeypatch.setattr(sys, "argv", [*argv, "--seeds", "0"])
    view_count.main()
    assert {r["seed"] for r in read_records(tmp_path / "kept" / "view_count" / "results.jsonl")} == {0}
    assert capsys.readouterr().out.count("convnet-4") == 3 * 2  # three calls, two numbers of views


def test_every_loss_has_a_student_of_the_same_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["loss_choice", "--quick", "--json", "--seeds", "4", "--out", str(tmp_path)]
    )
    loss_choice.main()
    records = read_records(tmp_path / "results.jsonl")
    students = [r for r in records if r["kind"] == "run" and r["generation"]]
    assert [r["loss"] for r in students] == ["ban-l", "ban", "kd", "cwtm", "dkpp"]
    assert [r["recipe"]["temperature"] for r in students] == [1, 1, 4, 1, 1]
    assert len({r["lineage"][0]["cache"] for r in students}) == 1
    assert len({r["weights"] for r in students}) == 5
    assert capsys.readouterr().out.count('"name": "BAN-1"') == 5
