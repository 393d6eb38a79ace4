"""The table and the figure of a study from a file, from one folder or several; the figures were worked out by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from contracts.calling import call, refuse, succeed
from report import sample
from report.sample import run

from bancache.report import arms_to_markdown, arms_to_text, read_results, write_report
from bancache.report.power import seeds_needed
from bancache.system.configs import write_toml

ERRORS = {
    "labels": {0: 0.50, 1: 0.52, 2: 0.54},
    "ban": {0: 0.48, 1: 0.49, 2: 0.53},  # differences -2, -3, -1: mean -2, standard deviation 1
    "worse": {0: 0.55, 2: 0.59},  # +5, +5
    "late": {},
}


def settings(seeds: tuple[int, ...] = (0, 1, 2), **recipe: Any) -> dict[str, dict[str, Any]]:
    arms = {"labels": {}, "ban": {"teacher": "labels", "loss_scale": 0.5}, "worse": {}, "late": {"epochs": 9}}
    return {
        "study": {"seeds": list(seeds), "baseline": "labels"},
        "data": {"source": "digits"},
        "model": {"name": "resnet-8"},
        "recipe": {"lr": 0.2, **recipe},
        "arms": arms,
    }


def folder(path: Path, tables: dict[str, dict[str, Any]], file: str = "arms.toml") -> Path:
    """Write what a study of these seeds leaves."""
    path.mkdir()
    write_toml(path / file, tables)
    seeds = tables["study"]["seeds"]
    lines = [
        {**run(0, seed, 0.5), "kind": "arm", "name": name, "test": sample.tested(error, nll=2.0, ece=0.1)}
        for name, errors in ERRORS.items()
        for seed, error in errors.items()
        if seed in seeds
    ]
    lines += [
        {
            "kind": "agreement",
            "seed": seed,
            "net": "ban",
            "weights": "w",
            "with": [{"net": "labels", "share": share, **({"kl": 0.5} if seed else {})}],
        }
        for seed, share in ((0, 0.6), (1, 0.7), (2, 0.8))
        if seed in seeds
    ]
    lines += [
        {"kind": "train", "seed": seed, "name": "ban", "weights": "w", "train": {"error": error, "nll": 1.5, "ece": 0.25},
         "with": [{"net": "labels", "share": 0.9, "kl": 0.125}]}
        for seed, error in ((0, 0.1), (1, 0.2), (0, 0.3))
        if seed in seeds
    ]  # fmt: skip
    (path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


TEXT = """\
arm     error %       seeds  against labels, points  missing seeds
labels  52.00 ± 2.00  3
ban     50.00 ± 2.65  3      -2.00 [-4.48, +0.48]
worse   57.00 ± 2.83  2      +5.00 [too few seeds]   1
late                  0                              0, 1, 2
"""


def test_every_arm_has_a_line_with_its_difference_and_what_is_missing(tmp_path: Path) -> None:
    """Student's t of two degrees of freedom is 4.303, and 4.303 / √3 = 2.484."""
    table = read_results([folder(tmp_path / "x", settings())]).arms
    assert table is not None
    assert arms_to_text(table) == TEXT
    assert (
        "| ban | teacher = labels, loss\\_scale = 0.5 | 50.00 ± 2.65 | 3 | -2.00 [-4.48, +0.48] | 34 |  |"
        in (arms_to_markdown(table))
    )
    assert "| late | epochs = 9 |  | 0 |  |  | 0, 1, 2 |" in arms_to_markdown(table)
    assert (table.missing, [row.needed for row in table.rows]) == (4, [None, 34, None, None])


def test_every_arm_has_its_likelihood_calibration_and_distance_to_its_teacher_on_both_splits(
    tmp_path: Path,
) -> None:
    """Means over seeds; of two lines of a seed the last one counts, and older lines lack the divergence."""
    labels, ban, _, late = succeed("report", folder(tmp_path / "x", settings()))["arms"]
    assert [ban[key] for key in ("nll", "ece", "agreement", "kl")] == pytest.approx([2.0, 0.1, 0.7, 0.5])
    assert ban["train"] == pytest.approx(
        {"error": 0.25, "nll": 1.5, "ece": 0.25, "agreement": 0.9, "kl": 0.125}
    )
    assert (labels["nll"], labels["agreement"], {*labels["train"].values()}) == (2.0, None, {None})
    assert {*late["train"].values()} == {late["nll"], late["kl"]} == {None}
    table = (tmp_path / "x" / "table.md").read_text()
    assert "| ban | 2.000 | 10.00 | 70.0 | 0.500 | 25.00 | 1.500 | 25.00 | 90.0 | 0.125 |" in table
    assert "| late |  |  |  |  |  |  |  |  |  |" in table
    page = (tmp_path / "x" / "page.html").read_text()
    assert all(value in page for value in ("0.125", "25.00\N{NO-BREAK SPACE}%", "90.0\N{NO-BREAK SPACE}%"))


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 199), (0.5, 34), (1.0, 10)])
def test_the_number_of_seeds_is_that_of_published_tables(effect: float, seeds: int) -> None:
    """G*Power's: small, medium and large effects, means of differences, two-sided, 5 %, power 80 %."""
    assert seeds_needed(0.005 / effect) == seeds
    assert seeds_needed(1.0, effect) == seeds


def test_the_number_of_seeds_has_ends() -> None:
    assert (seeds_needed(0.0), seeds_needed(1e-12), seeds_needed(100.0)) == (2, 2, None)


def test_a_page_of_another_name_has_a_table_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "table.md").write_text("mine")
    said = succeed("report", folder(tmp_path / "x", settings()), "--out", tmp_path / "first.html")
    assert said["table"] == str(tmp_path / "first-table.md")
    assert (tmp_path / "first-table.md").read_bytes() == (
        succeed("report", tmp_path / "x") and (tmp_path / "x" / "table.md").read_bytes()
    )
    assert (tmp_path / "table.md").read_text() == "mine"


def test_folders_of_some_seeds_each_are_reported_as_one(tmp_path: Path) -> None:
    first, second = folder(tmp_path / "a", settings((0, 2))), folder(tmp_path / "b", settings((1,)))
    found = succeed("report", first, second, "--out", tmp_path / "page.html")
    whole = succeed("report", folder(tmp_path / "x", settings()))
    assert found["arms"] == whole["arms"]
    assert (tmp_path / "table.md").read_bytes() == (tmp_path / "x" / "table.md").read_bytes()
    assert [arm["difference"] for arm in found["arms"]] == [
        None,
        pytest.approx(-0.02),
        pytest.approx(0.05),
        None,
    ]
    assert found["arms"][1]["difference_interval"] == pytest.approx([-0.04484, 0.00484], abs=1e-5)
    assert call("report", first, second, "--out", tmp_path / "page.html").out.startswith(TEXT)


def test_folders_of_different_studies_are_refused_with_both_values(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", settings((0,)))
    second = folder(tmp_path / "b", settings((1,), lr=0.3))
    refuse(4, (f"0.2 in {first}", f"0.3 in {second}"), "report", first, second, keep=tmp_path)
    other = settings((1,))
    other["arms"]["ban"] = {"teacher": "labels"}
    third = folder(tmp_path / "c", other)
    refuse(4, r"arms\.ban is .*loss_scale.* in .*a, and .* in .*c", "report", first, third, keep=tmp_path)


def test_a_seed_is_in_one_folder(tmp_path: Path) -> None:
    first, second = folder(tmp_path / "a", settings((0, 1))), folder(tmp_path / "b", settings((1, 2)))
    refuse(2, (f"seed 1 is in {first} and in {second}",), "report", first, second, keep=tmp_path)


def test_folders_of_generations_are_merged_by_their_settings(tmp_path: Path) -> None:
    """Two seeds in one and one in the other have the interval of three; what each machine found to be fast may differ."""
    tables: dict[str, dict[str, Any]] = {}
    for name, seeds, views, fast in (
        ("a", (0, 1), "crop1", (256, False)),
        ("b", (2,), "crop1", (1024, True)),
        ("c", (3,), "crop2", (256, False)),
    ):
        (tmp_path / name).mkdir()
        sequence = {"views": views, "batch_size": fast[0], "seeds": list(seeds)}
        tables = {"data": {"source": "digits"}, "sequence": sequence, "recipe": {"compile": fast[1]}}
        write_toml(tmp_path / name / "run.toml", tables)
        lines = [run(generation, seed, 0.5 - generation / 10) for seed in seeds for generation in (0, 1)]
        (tmp_path / name / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = Path(succeed("report", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "page.html")["out"])
    assert "Paired over 3 seeds" in page.read_text()
    refuse(4, ("sequence.views", "crop1", "crop2"), "report", tmp_path / "a", tmp_path / "c", keep=tmp_path)
    tables["sequence"]["views"], tables["recipe"] = "crop1", {"compile": False, "batch_size": 64}
    write_toml(tmp_path / "c" / "run.toml", tables)
    refuse(4, ("recipe.batch_size", "64"), "report", tmp_path / "a", tmp_path / "c", keep=tmp_path)


def test_a_folder_without_settings_is_not_merged(tmp_path: Path) -> None:
    first, second = folder(tmp_path / "a", settings((0,))), folder(tmp_path / "b", settings((1,)))
    (second / "arms.toml").unlink()
    refuse(2, (str(second), "arms.toml"), "report", first, second, hint="copy", keep=tmp_path)
    refuse(2, (str(second), "arms.toml"), "report", second, hint="copy", keep=tmp_path)


def test_the_page_has_one_figure_and_one_table_of_all_arms(tmp_path: Path) -> None:
    page = write_report(folder(tmp_path / "x", settings()), tmp_path / "page.html").read_text()
    figure = page[page.index('<div class="arms">') : page.index("</figure>")]
    assert re.findall(r'text-anchor="end">([a-z]+)<title>', figure) == ["ban", "worse", "late"]
    assert figure.count("<circle") == 2  # one with an interval, one ring, and an arm that is missing
    assert (figure.count('class="interval"'), figure.count('class="hollow"'), figure.count(">missing<")) == (
        1,
        1,
        1,
    )
    assert "<title>Against labels: 1 not clearly different" in page
    assert "4 of 12 results are missing" in page
    assert re.findall(r'<th class="text" scope="row">([a-z]+)<small>', page) == list(ERRORS)


def test_names_in_a_strangers_folder_are_text(tmp_path: Path) -> None:
    hostile, tables = "<script>alert(1)</script>|\x1b[31m", settings()
    tables["arms"] = {"labels": {}, hostile: {"<img src=x>": "<b>"}}
    path = folder(tmp_path / "x", tables)
    line = json.dumps({**run(0, 0, 0.4), "kind": "arm", "name": hostile})
    (path / "results.jsonl").write_text((path / "results.jsonl").read_text() + line + "\n")
    page = write_report(path, tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "\x1b" not in page + arms_to_text(read_results([path]).arms)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "study = 3",
        "[study]\nseeds = ['a']\nbaseline = 'a'",
        "[study]\nseeds = [0]\nbaseline = 3\n[arms.a]",
    ],
)
def test_a_damaged_copy_is_refused(content: str, tmp_path: Path) -> None:
    (path := folder(tmp_path / "x", settings())).joinpath("arms.toml").write_text(content)
    refuse(1, ("arms.toml",), "report", path, keep=tmp_path)
