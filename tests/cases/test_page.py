"""The page says what its numbers stand on, and draws no more than they carry."""

from __future__ import annotations

import pytest
from report.sample import Record, run
from report.test_page import Page

from bancache.cache.info import accuracy_warning
from bancache.report.basis import basis_of
from bancache.report.caches import savings
from bancache.report.families import sort_families
from bancache.report.formats import saved, share
from bancache.report.page import render
from bancache.report.tables import generations_table, interval_of
from bancache.views import ViewSpace


def pairs(*errors: tuple[float, float], **baseline: object) -> list[Record]:
    """Return a baseline and a BAN-1 for each seed, with these errors."""
    runs = []
    for seed, (before, after) in enumerate(errors):
        runs += [run(0, seed, before, **baseline), run(1, seed, after, lineage=[{"cache": "d"}])]
    return runs


def dump(**more: object) -> Record:
    return {"kind": "dump", "generation": 0, "digest": "d", "samples": 100, "views": 4, **more}


def history(*losses: float) -> list[Record]:
    return [{"epoch": epoch, "loss": loss} for epoch, loss in enumerate(losses, 1)]


def headline(records: list[Record]) -> str:
    (title,) = Page(render(records)).inside("h1")
    return title


def warnings(records: list[Record]) -> list[str]:
    """Return the paragraphs that are marked as warnings."""
    page = Page(render(records))
    classes = [name for name in page.classes("p") if name.startswith("lede")]
    paragraphs = page.inside("p")[1 : 1 + len(classes)]  # after the line above the title
    return [text for text, name in zip(paragraphs, classes, strict=True) if "warning" in name]


CLOSE = ((0.9641, 0.9688), (0.9640, 0.9690), (0.9642, 0.9686))


def test_the_headline_names_the_measure_and_chance() -> None:
    assert headline([*pairs(*CLOSE), dump(classes=100)]) == (
        "The test error of BAN-1 is higher than its baseline's: 96.88 % against 96.41 % (chance: 99.00 %)"
    )


@pytest.mark.parametrize(
    ("about", "chance"),
    [
        ({"classes": 100}, 0.99),
        ({"classes": 100, "chance": 0.3}, 0.7),  # three images in ten are of one class
        ({}, None),
        ({"classes": 100, "digest": "elsewhere"}, None),
    ],
)
def test_chance_is_the_error_of_the_most_frequent_class_or_of_equal_classes(
    about: dict[str, object], chance: float | None
) -> None:
    records = [*pairs((0.5, 0.4)), dump(**about)]
    (family,) = sort_families(records)
    assert basis_of(family, records).chance == (None if chance is None else pytest.approx(chance))


def test_the_test_images_own_chance_comes_before_that_of_the_training_images() -> None:
    records = [*pairs((0.5, 0.4)), dump(classes=100)]
    records[0]["test"]["chance"] = 0.25
    (family,) = sort_families(records)
    assert basis_of(family, records).chance == 0.75


@pytest.mark.parametrize(("error", "warned"), [(0.7921, True), (0.7919, False)])
def test_a_baseline_or_a_teacher_that_keeps_eight_tenths_of_chance_is_warned_of(
    error: float, warned: bool
) -> None:
    """Chance errs on 99 % of a hundred classes; eight tenths of that are 79.2 %."""
    said = warnings([*pairs((error, 0.5)), dump(classes=100)])
    assert [("chance" in text, "99.00 %" in text) for text in said] == [(True, True)] * warned
    views = ViewSpace.parse("identity", seed=0).to_dict()
    assert bool(accuracy_warning(1 - error, 0.01, None, views)) == warned


def test_a_baseline_worse_than_chance_is_not_said_to_beat_it() -> None:
    (said,) = warnings([*pairs((0.995, 0.5)), dump(classes=100)])
    assert "does not beat chance" in said


@pytest.mark.parametrize(
    ("losses", "share_of_fall"),
    [
        ((4.0, 3.0, 2.0, 1.0), 1 / 3),  # one epoch of four
        ((4.0, 2.0, 1.1, 1.0), None),  # 0.1 of 3.0
        ((4.0, *[2.5] * 17, 2.0, 1.8, 1.0), 1 / 3),  # two epochs of twenty-one, from 2.0
        ((1.0, 1.0), None),
        ((1.0,), None),
    ],
)
def test_a_baseline_whose_loss_still_falls_is_warned_of(
    losses: tuple[float, ...], share_of_fall: float | None
) -> None:
    records = pairs((0.5, 0.4), history=history(*losses))
    (family,) = sort_families(records)
    basis = basis_of(family, records)
    assert basis.falling == (share_of_fall is not None)
    assert share_of_fall is None or (basis.end and basis.end[3]) == pytest.approx(share_of_fall)
    assert len(warnings(records)) == basis.falling


def test_two_seeds_have_no_interval_no_verdict_and_no_line() -> None:
    records = pairs((0.50, 0.40), (0.52, 0.41))
    (row,) = generations_table(records).rows
    (difference,) = row.differences
    assert (interval_of((-0.10, -0.11)), difference.interval, difference.verdict) == (None, None, "few")
    page = Page(render(records))
    assert "too few seeds" in page.inside("small")
    assert "hollow" in page.classes("circle")
    assert "interval" not in page.classes("line")
    assert headline(records).startswith("Two seeds only")


def test_three_seeds_have_them() -> None:
    records = pairs((0.50, 0.40), (0.52, 0.41), (0.51, 0.41))
    assert generations_table(records).rows[0].differences[0].verdict == "less"
    page = Page(render(records))
    assert "interval" in page.classes("line")
    assert "hollow" not in page.classes("circle")


def test_losses_of_one_term_and_of_two_have_a_panel_each() -> None:
    records = [run(0, 0, 0.5, history=history(4.0, 2.0)), run(1, 0, 0.4, history=history(8.0, 4.0))]
    captions = Page(render(records)).inside("figcaption")
    assert [caption for caption in captions if "loss" in caption] == [
        "Training loss, labels alone",
        "Training loss, with the teacher's part",
    ]


@pytest.mark.parametrize(("images", "bars"), [(24, ["bar hollow", "bar"]), (25, ["bar", "gap", "bar"])])
def test_a_bin_of_fewer_than_25_images_is_hollow(images: int, bars: list[str]) -> None:
    record = run(0, 0, 0.5)
    record["test"]["bins"] = [{"low": 0.5, "high": 1.0, "count": images, "confidence": 0.75, "accuracy": 0.7}]
    assert Page(render([record])).classes("rect") == bars


def test_a_share_below_ten_per_cent_has_a_decimal() -> None:
    assert [share(part).replace("\N{NO-BREAK SPACE}", " ") for part in (0.5, 0.1, 0.099, 0.014, 0.006, 0.0004, 0.0)] == [
        "50 %", "10 %", "9.9 %", "1.4 %", "0.6 %", "< 0.1 %", "0.0 %",
    ]  # fmt: skip


@pytest.mark.parametrize(("epochs", "shown"), [(4, "about 0"), (5, "0.9 s"), (3, "-1.1 s")])
def test_a_saving_that_the_last_batch_explains_is_about_zero(epochs: int, shown: str) -> None:
    """400 pairs dumped at 100 a second; each epoch reads 98 of its 100 images, in batches of 14: 392 in four."""
    student = run(1, 0, 0.5, epochs=epochs, recipe={"batch_size": 14}, lineage=[{"cache": "d"}])
    (saving,) = savings([dump(images_per_second=100.0), student])
    assert saved(saving) == shown


def test_a_path_breaks_at_its_slashes() -> None:
    page = render([run(0, 0, 0.5, data="parquet:../shared/<data>")])
    assert "parquet:../<wbr>shared/<wbr>&lt;data&gt;" in page


def test_the_contents_lead_to_every_part() -> None:
    page = Page(render([*pairs((0.5, 0.4)), dump(bytes=10)]))
    assert page.inside("a") == page.sections()
    links = [value for key, value in page.attributes if key == "href"]
    assert links == [f"#{value}" for key, value in page.attributes if key == "id"]
