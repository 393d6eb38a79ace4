from __future__ import annotations

import pytest
from report.sample import run, study

from bancache.report.axes import Scale, apart, padded, ticks
from bancache.report.curves import Bin, Series, line_chart, pool_bins, reliability_chart
from bancache.report.dots import error_chart
from bancache.report.tables import generations_table


@pytest.mark.parametrize(
    ("low", "high", "whole", "labels"),
    [
        (0.0, 100.0, False, ["0", "20", "40", "60", "80", "100"]),
        (1.32, 4.2, False, ["2", "3", "4"]),
        (0.511, 0.519, False, ["0.512", "0.514", "0.516", "0.518"]),
        (1, 2, True, ["1", "2"]),
        (1, 30, True, ["10", "20", "30"]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, whole: bool, labels: list[str]) -> None:
    assert [label for _, label in ticks(low, high, whole=whole)] == labels


def test_a_scale_maps_its_ends_to_its_ends() -> None:
    scale = Scale(10.0, 20.0, 200.0, 0.0)
    assert (scale(10), scale(20), scale(12.5)) == (200.0, 0.0, 150.0)


@pytest.mark.parametrize("values", [[0.0], [3.0, 3.0], [-1.0, 1.0]])
def test_a_range_is_never_empty_and_holds_the_values(values: list[float]) -> None:
    low, high = padded(values)
    assert low < min(values) <= max(values) < high


def test_labels_move_apart_and_stay_inside() -> None:
    assert apart([10, 11, 50], gap=10, low=0, high=100) == [10, 20, 50]
    assert apart([99, 98, 10], gap=10, low=0, high=100) == [100, 90, 10]
    assert apart([5, 5, 5], gap=60, low=0, high=100) == [0, 50, 100]
    assert apart([], gap=10, low=0, high=100) == []


def test_a_mean_line_is_over_the_epochs_that_every_seed_has() -> None:
    series = Series("BAN-1", 1, (((1, 0.2), (2, 0.4), (3, 0.9)), ((1, 0.4), (2, 0.8))))
    epochs, values = zip(*series.mean(), strict=True)
    assert epochs == (1, 2)
    assert values == pytest.approx((0.3, 0.6))


def test_a_chart_is_an_image_with_a_title_and_a_description_in_words() -> None:
    svg = line_chart("Loss", [Series("BAN-1", 1, (((1, 4.0), (2, 2.0)),))])
    assert svg is not None
    assert 'role="img"' in svg
    assert ">Loss</title>" in svg
    assert ">Lines over epochs. BAN-1 ends at 2 (mean of 1).</desc>" in svg
    # The range 2 to 4 with 6 % of air lies on the heights 216 to 10.
    assert 'd="M40.0 21.0L298.0 205.0"' in svg


@pytest.mark.parametrize("seeds", [(), (((1, 0.5),),), (((1, 0.5), (2, 0.6)), ((3, 0.5), (4, 0.6)))])
def test_without_two_epochs_there_is_no_line_chart(
    seeds: tuple[tuple[tuple[float, float], ...], ...],
) -> None:
    assert line_chart("Loss", [Series("BAN-1", 1, seeds)]) is None


def test_seeds_are_pooled_image_by_image() -> None:
    first = [{"low": 0.5, "high": 1.0, "count": 30, "confidence": 0.8, "accuracy": 0.6}]
    second = [{"low": 0.5, "high": 1.0, "count": 10, "confidence": 0.6, "accuracy": 1.0}]
    (pooled,) = pool_bins([first, second])
    assert (pooled.low, pooled.high, pooled.count) == (0.5, 1.0, 40)
    assert (pooled.confidence, pooled.accuracy) == pytest.approx((0.75, 0.7))


def test_what_is_no_bin_is_left_out() -> None:
    empty = {"low": 0.0, "high": 0.5, "count": 0, "confidence": 0.0, "accuracy": 0.0}
    assert pool_bins([None, "bins", [empty, {"low": 0.0}, 3]]) == ()
    assert reliability_chart("Reliability", 0, ()) is None


def test_a_reliability_bar_says_its_numbers() -> None:
    svg = reliability_chart("Reliability", 2, [Bin(0.5, 1.0, 1234, 0.75, 0.7)])
    assert svg is not None
    assert "<title>confidence 0.50 to 1.00: 70.0% right, 1,234 images</title>" in svg


def test_the_error_chart_has_a_dot_for_each_seed() -> None:
    (row,) = generations_table(study()).rows
    svg = error_chart("Errors", row)
    assert svg is not None
    assert svg.count("<circle") == 9
    assert "<title>BAN-1, seed 1: 56.60 %</title>" in svg


def test_a_single_column_needs_no_error_chart() -> None:
    (row,) = generations_table([run(0, 0, 0.5)]).rows
    assert error_chart("Errors", row) is None
