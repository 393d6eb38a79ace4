"""Every figure here was worked out by hand from the errors in sample.py."""

from __future__ import annotations

import json
import re

import pytest
from report.sample import ensemble, run, study

from bancache.errors import DataError
from bancache.report import generations_table, to_markdown, to_rows, to_text
from bancache.report.formats import points
from bancache.report.tables import Cell, Row, interval_of, spread_of

TEXT = """\
model     loss   name      error %       seeds  against the baseline, points
resnet-8  ban-l  baseline  58.10 ± 0.30  3
                 BAN-1     56.40 ± 0.20  3      -1.70 [-2.94, -0.46]
                 BAN-2     56.80 ± 0.28  2      -1.15 [too few seeds]
                 Ens*2     55.00         1      -3.10 [too few seeds]
"""

MARKDOWN = r"""Test error in %, mean ± spread over seeds (number of seeds).

| model | loss | baseline | BAN-1 | BAN-2 | Ens\*2 |
| --- | --- | ---: | ---: | ---: | ---: |
| resnet-8 | ban-l | 58.10 ± 0.30 (3) | 56.40 ± 0.20 (3) | 56.80 ± 0.28 (2) | 55.00 (1) |

Difference in percentage points, paired by seed: mean [95 % confidence interval, from three seeds on].

| model | loss | name | against the baseline | seeds |
| --- | --- | --- | ---: | ---: |
| resnet-8 | ban-l | BAN-1 | -1.70 [-2.94, -0.46] | 3 |
| resnet-8 | ban-l | BAN-2 | -1.15 [too few seeds] | 2 |
| resnet-8 | ban-l | Ens\*2 | -3.10 [too few seeds] | 1 |
"""


def only_row(records: list[dict[str, object]]) -> Row:
    (row,) = generations_table(records).rows
    return row


def cell(row: Row, column: str) -> Cell:
    found = row.cell(column)
    assert found is not None
    return found


def test_a_cell_is_the_mean_and_the_sample_standard_deviation_over_seeds() -> None:
    row = only_row(study())
    assert [c.column for c in row.cells] == ["baseline", "BAN-1", "BAN-2", "Ens*2"]
    assert [c.mean for c in row.cells] == pytest.approx([0.5810, 0.5640, 0.5680, 0.5500], abs=1e-12)
    spreads = [c.spread for c in row.cells[:3]]
    assert spreads == pytest.approx([0.0030, 0.0020, 0.0028284271], abs=1e-9)
    assert [c.seeds for c in row.cells] == [(0, 1, 2), (0, 1, 2), (0, 1), (0,)]


def test_a_single_seed_has_no_spread_and_no_interval() -> None:
    row = only_row(study())
    assert cell(row, "Ens*2").spread is None
    difference = row.difference("Ens*2")
    assert difference is not None
    assert difference.interval is None


def test_differences_are_paired_by_seed_with_students_interval() -> None:
    row = only_row(study())
    assert row.difference("baseline") is None
    first, second, both = row.differences
    assert first.values == pytest.approx((-0.0170, -0.0120, -0.0220), abs=1e-12)
    # 4.3026527 (two degrees of freedom) × 0.005 / √3. Of two seeds there would be one degree, which says nothing.
    assert first.mean == pytest.approx(-0.0170, abs=1e-12)
    assert first.interval == pytest.approx((-0.0294206886, -0.0045793114), abs=1e-8)
    assert second.values == pytest.approx((-0.0110, -0.0120), abs=1e-12)
    assert (second.interval, second.verdict) == (None, "few")
    assert both.mean == pytest.approx(-0.0310, abs=1e-12)


def test_a_student_without_its_own_baseline_counts_in_the_cell_but_not_in_the_difference() -> None:
    row = only_row([run(0, 0, 0.50), run(1, 0, 0.40), run(1, 7, 0.30)])
    assert cell(row, "BAN-1").seeds == (0, 7)
    difference = row.difference("BAN-1")
    assert difference is not None
    assert difference.ours.seeds == (0,)


def test_of_two_records_of_the_same_model_the_last_one_counts() -> None:
    row = only_row([run(0, 0, 0.9), run(1, 0, 0.8), run(0, 0, 0.5), run(1, 0, 0.4), run(1, 0, 0.45)])
    assert [c.errors for c in row.cells] == [(0.5,), (0.45,)]


def test_the_text_for_a_terminal_is_frozen() -> None:
    assert to_text(generations_table(study())) == TEXT


def test_the_markdown_has_the_shape_of_the_papers_table() -> None:
    assert to_markdown(generations_table(study())) == MARKDOWN


def test_rows_are_json_with_fractions_of_one() -> None:
    rows = to_rows(generations_table(study()))
    assert json.loads(json.dumps(rows)) == rows
    assert [row["name"] for row in rows] == ["baseline", "BAN-1", "BAN-2", "Ens*2"]
    assert rows[0]["difference"] is None
    assert rows[3] == {
        "data": "digits",
        "model": "resnet-8",
        "loss": "ban-l",
        "num_views": 162,
        "name": "Ens*2",
        "error": 0.55,
        "error_spread": None,
        "seeds": [0],
        "errors": [0.55],
        "difference": pytest.approx(-0.031),
        "difference_interval": None,
        "difference_seeds": [0],
    }


def test_losses_are_rows_of_their_own_beside_the_same_baseline() -> None:
    table = generations_table([*study(), run(1, 0, 0.60, loss="kd"), run(1, 1, 0.61, loss="kd")])
    assert [(row.key.loss, [c.column for c in row.cells]) for row in table.rows] == [
        ("ban-l", ["baseline", "BAN-1", "BAN-2", "Ens*2"]),
        ("kd", ["baseline", "BAN-1"]),
    ]
    assert cell(table.rows[1], "baseline").seeds == (0, 1, 2)


def test_a_baseline_goes_with_the_family_of_its_own_loss() -> None:
    records = [run(0, 0, 0.5), run(0, 0, 0.3, loss="kd"), run(1, 0, 0.4), run(1, 0, 0.2, loss="kd")]
    baselines = {row.key.loss: cell(row, "baseline").mean for row in generations_table(records).rows}
    assert baselines == {"ban-l": 0.5, "kd": 0.3}


def test_data_sources_and_cache_sizes_never_share_a_row() -> None:
    records = [
        run(0, 0, 0.5),
        run(1, 0, 0.4),
        run(1, 0, 0.45, num_views=4),
        run(0, 0, 0.2, data="cifar10:x"),
        run(1, 0, 0.1, data="cifar10:x"),
    ]
    table = generations_table(records)
    assert table.labels == ("model", "loss", "data", "num_views")
    assert [table.names(row) for row in table.rows] == [
        ("resnet-8", "ban-l", "digits", "162"),
        ("resnet-8", "ban-l", "digits", "4"),
        ("resnet-8", "ban-l", "cifar10:x", "162"),
    ]
    assert [cell(row, "baseline").mean for row in table.rows] == [0.5, 0.5, 0.2]


def test_an_ensemble_goes_with_the_latest_runs_before_it_that_can_be_its_members() -> None:
    records = [
        run(1, 0, 0.4),
        ensemble(1, 0, 0.39),
        run(1, 0, 0.5, loss="kd"),
        run(1, 1, 0.5, loss="cwtm"),
        ensemble(2, 0, 0.49),
        ensemble(3, 0, 0.38, loss="ban-l"),
    ]
    columns = {row.key.loss: [c.column for c in row.cells] for row in generations_table(records).rows}
    assert columns == {"ban-l": ["BAN-1", "Ens*1", "Ens*3"], "kd": ["BAN-1", "Ens*2"], "cwtm": ["BAN-1"]}


def test_an_ensemble_that_names_its_members_weights_goes_with_them() -> None:
    records = [
        run(1, 0, 0.4, num_views=4, weights="a"),
        run(1, 0, 0.5, num_views=162, weights="b"),
        ensemble(2, 0, 0.3, model="resnet-8", loss="ban-l", weights=["a", "c"]),
    ]
    columns = {row.key.num_views: [c.column for c in row.cells] for row in generations_table(records).rows}
    assert columns == {4: ["BAN-1", "Ens*2"], 162: ["BAN-1"]}


def test_models_of_the_first_images_only_have_a_row_of_their_own() -> None:
    records = [run(0, 0, 0.5), run(1, 0, 0.4), run(0, 0, 0.8, limit=10_000), run(1, 0, 0.7, limit=10_000)]
    table = generations_table(records)
    assert [row.key.data for row in table.rows] == ["digits", "digits (first 10,000)"]
    assert [cell(row, "baseline").mean for row in table.rows] == [0.5, 0.8]


def test_an_ensemble_without_any_member_is_not_shown() -> None:
    assert generations_table([ensemble(2, 0, 0.4)]).rows == ()


def test_columns_stand_by_generation_then_by_size_of_the_ensemble() -> None:
    records = [run(g, 0, 0.5) for g in (10, 2, 0, 1)]
    records += [ensemble(n, 0, 0.4) for n in (10, 2)]
    columns = generations_table(records).columns
    assert columns == ("baseline", "BAN-1", "BAN-2", "BAN-10", "Ens*2", "Ens*10")


def test_no_records_make_an_empty_table() -> None:
    table = generations_table([])
    assert to_rows(table) == []
    assert to_text(table) == "model  loss  name  error %  seeds  against the baseline, points\n"
    assert "Difference" not in to_markdown(table)


@pytest.mark.parametrize(
    ("broken", "name", "value"),
    [
        ({"seed": None}, "seed", "None"),
        ({"generation": -1}, "generation", "-1"),
        ({"generation": True}, "generation", "True"),
        ({"test": {}}, "test error", "None"),
        ({"test": {"error": 41.9}}, "test error", "41.9"),
        ({"test": {"error": float("nan")}}, "test error", "None"),
        ({"test": None}, "test error", "None"),
    ],
)
def test_a_record_that_the_table_cannot_use_is_refused(
    broken: dict[str, object], name: str, value: str
) -> None:
    with pytest.raises(DataError, match=rf"record 1 \(run\).*{name}.*{re.escape(value)}"):
        generations_table([{**run(1, 0, 0.5), **broken}])


def test_a_name_cannot_talk_to_the_terminal_or_break_the_markdown_table() -> None:
    table = generations_table([run(0, 0, 0.5, model="a\x1b[31m|b\n[c](d)<i>")])
    assert "\x1b" not in to_text(table)
    assert to_text(table).count("\n") == 2
    row = to_markdown(table).splitlines()[-1]
    assert row.startswith("| a�[31m\\|b�[c]\\(d)\\<i\\> | ban-l | 50.00 (1) |")


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert [points(value) for value in (-0.00001, 0.00001, 0.0123, -0.0123)] == [
        "0.00",
        "0.00",
        "+1.23",
        "-1.23",
    ]


def test_one_value_has_no_spread_two_have_no_interval_and_equal_values_have_none_to_speak_of() -> None:
    assert spread_of([0.5]) is None
    assert interval_of([0.5]) is None
    assert interval_of([0.25, 0.5]) is None
    assert interval_of([0.25, 0.25, 0.25]) == (0.25, 0.25)
