from __future__ import annotations

import pytest
from report.sample import Record, run, study
from report.test_page import Page

from bancache.report.charts import Line, Scale, apart, error_chart, line_chart, padded, pool_bins, ticks
from bancache.report.page import render
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


def with_losses(seed: int, *losses: float) -> Record:
    """A baseline with these training losses at epochs 1, 2, ..."""
    history = [{"epoch": epoch, "loss": loss} for epoch, loss in enumerate(losses, 1)]
    return run(0, seed, 0.5, history=history)


def test_a_mean_line_is_over_the_epochs_that_every_seed_has() -> None:
    page = Page(render([with_losses(0, 0.2, 0.4, 0.9), with_losses(1, 0.4, 0.8)]))
    assert "baseline ends at 0.6 (mean of 2)" in page.text
    assert [tag for tag in page.classes("path") if tag != "leader"] == ["seed", "seed", "mean"]


def test_a_line_chart_is_an_image_with_a_title_and_a_description() -> None:
    page = Page(render([with_losses(0, 4.0, 2.0)]))
    assert page.tags.count("desc") == page.attributes.count(("role", "img")) == 1
    assert "Training loss, labels alone" in page.inside("title")
    # The range 2 to 4 with 6 % of air lies on the heights 216 to 10.
    assert ("d", "M42.0 21.0L288.0 205.0") in page.attributes


@pytest.mark.parametrize("mean", [[], [(1.0, 0.5)]])
def test_without_two_epochs_there_is_no_line_chart(mean: list[tuple[float, float]]) -> None:
    assert line_chart([Line("BAN-1", 1, [mean], mean)]) is None


def test_seeds_are_pooled_image_by_image() -> None:
    first = [{"low": 0.5, "high": 1.0, "count": 30, "confidence": 0.8, "accuracy": 0.6}]
    second = [{"low": 0.5, "high": 1.0, "count": 10, "confidence": 0.6, "accuracy": 1.0}]
    (pooled,) = pool_bins([first, second])
    assert (pooled.low, pooled.high, pooled.images) == (0.5, 1.0, 40)
    assert (pooled.confidence, pooled.accuracy) == pytest.approx((0.75, 0.7))


def test_what_is_no_bin_is_left_out() -> None:
    empty = {"low": 0.0, "high": 0.5, "count": 0, "confidence": 0.0, "accuracy": 0.0}
    assert pool_bins([None, "bins", [empty, {"low": 0.0}, 3]]) == []


def test_a_reliability_bar_says_its_numbers() -> None:
    record = run(0, 0, 0.5)
    record["test"]["bins"] = [{"low": 0.5, "high": 1.0, "count": 1234, "confidence": 0.75, "accuracy": 0.7}]
    titles = Page(render([record])).inside("title")
    assert "confidence 0.50 to 1.00: 70.0 % right, 1,234 images" in titles


def test_the_error_chart_has_a_dot_for_each_seed() -> None:
    titles = Page(render(study())).inside("title")
    dots = [title for title in titles if ", seed " in title]
    assert len(dots) == 9
    assert "BAN-1, seed 1: 56.60 %" in dots


def test_a_single_column_needs_no_error_chart() -> None:
    (row,) = generations_table([run(0, 0, 0.5)]).rows
    assert error_chart(row) is None
