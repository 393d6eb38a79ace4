"""Students beside what they are without a teacher; every figure was worked out by hand from sample.py."""

from __future__ import annotations

import pytest
from report.sample import LABELS, Record, control, control_ensemble, controlled_study, run, study
from report.test_page import Page

from bancache.report import generations_table, to_markdown, to_text
from bancache.report.caches import savings
from bancache.report.families import sort_families
from bancache.report.page import render
from bancache.report.tables import agreement

TEXT = """\
model     loss   name                    error %       seeds  against the baseline, points
resnet-8  ban-l  baseline                58.10 ± 0.30  3
                 BAN-1                   56.40 ± 0.20  3      -1.70 [-2.94, -0.46]
                 BAN-2                   56.80 ± 0.28  2      -1.15 [too few seeds]
                 Ens*2                   54.95 ± 0.07  2      -3.00 [too few seeds]
                 labels-1                58.00 ± 0.20  3
                 labels-2                57.50 ± 0.14  2
                 weight-2                57.33 ± 0.12  3
                 Ctl*2                   55.45 ± 0.21  2
                 BAN-1 against labels-1                3      -1.60 [-1.60, -1.60]
                 BAN-1 against weight-2                3      -0.93 [-1.22, -0.65]
                 BAN-2 against labels-2                2      -0.70 [too few seeds]
                 Ens*2 against Ctl*2                   2      -0.50 [too few seeds]
"""


def test_each_student_is_paired_with_its_control_by_seed() -> None:
    (row,) = generations_table(controlled_study()).rows
    pairs = {(d.ours.column, d.theirs.column): d for d in row.control_differences}
    assert list(pairs) == [
        ("BAN-1", "labels-1"), ("BAN-1", "weight-2"), ("BAN-2", "labels-2"), ("Ens*2", "Ctl*2"),
    ]  # fmt: skip
    assert pairs["BAN-1", "labels-1"].values == pytest.approx((-0.0160, -0.0160, -0.0160), abs=1e-12)
    heavy = pairs["BAN-1", "weight-2"]
    assert heavy.values == pytest.approx((-0.0100, -0.0080, -0.0100), abs=1e-12)
    # Standard deviation 0.0011547; 4.3026527 of them over √3 on each side.
    assert heavy.mean == pytest.approx(-0.0093333333, abs=1e-9)
    assert heavy.interval == pytest.approx((-0.0122017684, -0.0064648982), abs=1e-8)
    assert pairs["BAN-2", "labels-2"].values == pytest.approx((-0.0060, -0.0080), abs=1e-12)
    assert pairs["Ens*2", "Ctl*2"].values == pytest.approx((-0.0060, -0.0040), abs=1e-12)


def test_controls_change_nothing_of_the_papers_table() -> None:
    (plain,), (beside,) = (generations_table(records).rows for records in (study(), controlled_study()))
    assert plain.cells[:3] == beside.cells[:3]
    assert plain.differences[:2] == beside.differences[:2]
    assert (plain.controls, plain.control_differences) == ((), ())


def test_the_text_with_controls_is_frozen() -> None:
    assert to_text(generations_table(controlled_study())) == TEXT


def test_the_markdown_has_a_table_against_the_controls() -> None:
    shown = to_markdown(generations_table(controlled_study()))
    assert shown.endswith(
        r"""
Against models without a teacher, on the seeds that have both.

| model | loss | name | control | error | control's error | difference | seeds |
| --- | --- | --- | --- | ---: | ---: | ---: | ---: |
| resnet-8 | ban-l | BAN-1 | labels-1 | 56.40 ± 0.20 | 58.00 ± 0.20 | -1.60 [-1.60, -1.60] | 3 |
| resnet-8 | ban-l | BAN-1 | weight-2 | 56.40 ± 0.20 | 57.33 ± 0.12 | -0.93 [-1.22, -0.65] | 3 |
| resnet-8 | ban-l | BAN-2 | labels-2 | 56.80 ± 0.28 | 57.50 ± 0.14 | -0.70 [too few seeds] | 2 |
| resnet-8 | ban-l | Ens\*2 | Ctl\*2 | 54.95 ± 0.07 | 55.45 ± 0.21 | -0.50 [too few seeds] | 2 |
"""
    )
    assert "labels-1" not in shown.split("Against models")[0]


def test_a_pair_is_shown_on_the_seeds_that_both_have() -> None:
    """BAN-1 of seed 1 has no label-only baseline; its error counts in the paper's table and not beside the control."""
    records = [run(1, 0, 0.5), run(1, 1, 0.3), control(1, 0, 0.6), control(1, 2, 0.1)]
    (row,) = generations_table(records).rows
    (difference,) = row.control_differences
    assert (difference.ours.errors, difference.theirs.errors) == ((0.5,), (0.6,))
    assert difference.values == pytest.approx((-0.1,))
    assert difference.interval is None


def test_controls_serve_every_loss_of_their_net_and_data_and_no_other() -> None:
    others = [run(1, 0, 0.55, loss="kd"), run(1, 0, 0.5, data="cifar10:x"), run(1, 0, 0.5, model="resnet-14")]
    rows = generations_table([*controlled_study(), *others]).rows
    served = {row.key[:3]: [d.theirs.column for d in row.control_differences] for row in rows}
    assert served == {
        ("digits", "resnet-8", "ban-l"): ["labels-1", "weight-2", "labels-2", "Ctl*2"],
        ("digits", "resnet-8", "kd"): ["labels-1", "weight-2"],
        ("cifar10:x", "resnet-8", "ban-l"): [],
        ("digits", "resnet-14", "ban-l"): [],
    }


def test_a_control_that_came_out_better_is_shown_like_any_other() -> None:
    records = [*study(), *(control(1, seed, error - 0.05) for seed, error in LABELS[1].items())]
    page = Page(render(records))
    assert "+3.40" in page.inside("td")
    assert "+3.40 to +3.40" in page.inside("small")


def test_the_finding_names_the_controls_that_could_explain_the_gain() -> None:
    ledes = Page(render(controlled_study())).inside("p")
    (said,) = (text for text in ledes if "weight-2 -" in text)
    assert "BAN-1 against weight-2 -0.93 points (-1.22 to -0.65); " in said
    assert "Ens*2 against Ctl*2 -0.50 points (too few seeds)." in said
    assert "labels-1" not in said


def test_an_ensemble_of_controls_without_its_members_is_not_shown() -> None:
    (row,) = generations_table([*study(), control_ensemble(2, 0, 0.4)]).rows
    assert row.controls == ()


def agrees(net: str, seed: int, **shares: float) -> Record:
    """Say how often a model of a seed agrees; names of weights are ``b`` for the baseline, ``s1``, ``l1`` …"""
    others = [{"net": other, "weights": f"{other}-{seed}", "share": share} for other, share in shares.items()]
    return {"kind": "agreement", "seed": seed, "net": net, "weights": f"{net}-{seed}", "with": others}


def test_agreement_is_the_mean_over_seeds_below_the_diagonal() -> None:
    models = [
        record
        for seed in (0, 1)
        for record in (
            run(0, seed, 0.5, weights=f"b-{seed}"),
            run(1, seed, 0.4, weights=f"s1-{seed}"),
            run(2, seed, 0.4, weights=f"s2-{seed}"),
            control(1, seed, 0.5, weights=f"l1-{seed}"),
        )
    ]
    said = [
        agrees("s1", 0, b=0.60), agrees("s1", 1, b=0.62), agrees("s2", 0, b=0.58, s1=0.701),
        agrees("s2", 1, b=0.57, s1=0.703), agrees("l1", 0, b=0.51), agrees("l1", 0, b=0.52),
        agrees("elsewhere", 0, b=0.1), {"kind": "agreement", "with": [{"share": 1.0}, 3], "weights": None},
    ]  # fmt: skip
    (family,) = sort_families(models)
    shown = agreement(family, said)
    assert shown is not None
    assert shown["generations"] == [
        ("", ["BAN-1", "BAN-2"], "text"), ("baseline", ["61.0", "57.5"]), ("BAN-1", [None, "70.2"]),
    ]  # fmt: skip
    assert shown["labels"] == [("", ["labels-1"], "text"), ("baseline", ["52.0"])]
    assert shown["seeds"] == 2
    cells = Page(render([*models, *said])).inside("td")
    assert {"61.0", "57.5", "70.2", "52.0"} <= set(cells)


def test_time_saved_is_what_the_teacher_would_have_taken_less_the_dump() -> None:
    """1,040 images in 4 views at 200 a second: 20.8 s. Two students of 10 and 6 epochs of ten batches of 100: 80 s."""
    dump = {
        "kind": "dump", "generation": 0, "digest": "d", "samples": 1_040, "views": 4, "images_per_second": 200.0,
    }  # fmt: skip
    common: Record = {"recipe": {"batch_size": 100}, "lineage": [{"cache": "d"}]}
    first, second = (run(1, 0, 0.5, epochs=epochs, **common) for epochs in (10, 6))
    other = run(1, 0, 0.5, epochs=3, **{**common, "lineage": [{"cache": "elsewhere"}]})
    (saving,) = savings([dump, first, second, other])
    assert [saving[name] for name in ("students", "dumped", "read", "rate")] == [2, 4_160, 16_000, 200]
    assert {"20.8 s", "1 min 20 s", "59.2 s"} <= set(Page(render([dump, first, second])).inside("td"))
    # A student that saw fewer pairs than were dumped made the cache a loss, and the page says so.
    few = run(1, 0, 0.5, epochs=1, **common)
    assert "-15.8 s" in Page(render([dump, few])).inside("td")
    assert "Time saved" not in Page(render([dump])).sections()
