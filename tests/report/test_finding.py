"""The sentences at the top of the page say no more than the table: numbers, and which way a difference goes."""

from __future__ import annotations

import pytest
from report.sample import Record, run, study
from report.test_page import Page

from bancache.report import generations_table
from bancache.report.page import render


def compared(*errors: tuple[float, float]) -> list[Record]:
    """Return runs of seeds with these errors of baseline and BAN-1."""
    return [run(g, seed, pair[g]) for seed, pair in enumerate(errors) for g in (0, 1)]


def found(records: list[Record]) -> tuple[str, str]:
    """Return the headline and the sentences of the page."""
    page = Page(render(records))
    (headline,) = page.inside("h1")
    assert page.inside("title")[0].startswith(headline)
    return headline, " ".join(page.inside("p"))


@pytest.mark.parametrize(
    ("errors", "verdict", "words", "numbers"),
    [
        (((0.581, 0.564), (0.578, 0.566), (0.584, 0.562)), "less", "is lower", ("56.40 %", "58.10 %")),
        (((0.40, 0.45), (0.41, 0.46), (0.42, 0.471)), "more", "is higher", ("46.03 %", "41.00 %")),
        (
            ((0.40, 0.38), (0.40, 0.41), (0.40, 0.395)),
            "unclear",
            "No clear difference",
            ("39.50 %", "40.00 %"),
        ),
        (((0.40, 0.30), (0.42, 0.32)), "few", "Two seeds only", ("31.00 %", "41.00 %")),
        (((0.40, 0.30),), "few", "One seed only", ("30.00 %", "40.00 %")),
    ],
)
def test_the_headline_follows_from_the_interval(
    errors: tuple[tuple[float, float], ...], verdict: str, words: str, numbers: tuple[str, str]
) -> None:
    records = compared(*errors)
    (row,) = generations_table(records).rows
    assert row.differences[0].verdict == verdict
    headline, _ = found(records)
    assert words in headline
    assert "test error" in headline
    assert all(number in headline for number in numbers)


def test_the_sentences_give_every_difference_with_its_interval() -> None:
    _, sentences = found(study())
    for shown in (
        "-1.70 points (95 % interval -2.94 to -0.46)",
        "-1.15 points (too few seeds)",
        "Ens*2 -3.10 points (too few seeds).",
    ):
        assert shown in sentences
    assert "--control" in sentences


def test_only_a_gain_without_controls_is_said_to_have_other_explanations() -> None:
    assert "--control" not in found(compared((0.40, 0.45), (0.41, 0.46), (0.42, 0.471)))[1]


def test_several_comparisons_are_counted_and_each_gets_its_sentence() -> None:
    records = [*study(), run(1, 0, 0.60, loss="kd"), run(1, 1, 0.57, loss="kd"), run(1, 0, 0.5, loss="cwtm")]
    headline, sentences = found(records)
    assert headline.startswith("3 comparisons")
    assert headline.endswith("baseline's: 1 lower, 2 with too few seeds")
    assert all(f"resnet-8 {loss}. " in sentences for loss in ("ban-l", "kd", "cwtm"))


def test_without_a_pair_there_is_a_number_but_no_comparison() -> None:
    headline, sentences = found([run(0, 0, 0.4), run(1, 1, 0.3)])
    assert "resnet-8 baseline" in headline
    assert "40.00 %" in headline
    assert "points" not in sentences


def test_a_page_without_any_model_has_a_headline() -> None:
    assert found([{"kind": "dump", "generation": 0, "bytes": 10}])[0]
