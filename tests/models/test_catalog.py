"""The paper's rows, each with the exact count of the reference."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from bancache.models import build_model, canonical_name
from bancache.models.catalog import CatalogRow, catalog


@pytest.fixture(scope="module")
def rows() -> dict[str, CatalogRow]:
    return {row.name: row for row in catalog()}


EXACT = {
    "densenet-bc-112-33": 6_360_761,
    "densenet-bc-90-60": 16_240_600,
    "densenet-bc-80-80": 22_499_100,
    "densenet-bc-80-120": 50_479_600,
    "preresnet-1001": 10_350_836,
    "wrn-28-10": 36_536_884,
    "wrn-28-20": 145_930_804,
    "match-wrn-1-1": 21_068_920,
    "match-wrn-2-1": 43_189_480,
    "match-wrn-4-0.5": 24_407_605,
    "match-wrn-4-1": 87_430_600,
    "match-densenet-7-1-2": 21_346_120,
    "match-densenet-14-0.5-1": 5_100_940,
    "match-densenet-14-0.75-1.5": 10_161_730,
    "match-densenet-14-1-3": 40_270_200,
    "match-densenet-28-1-2": 13_740_760,
    "match-densenet-42-1-2": 12_954_520,
    "match-densenet-56-1-2": 12_596_680,
    # The reference has these two to three decimals of a million only: 7.393 and 17.796.
    "match-preresnet-14-0.5": 7_393_082,
    "match-preresnet-14-1": 17_795_842,
}


def test_every_row_of_both_tables_is_there_and_no_other(rows: dict[str, CatalogRow]) -> None:
    assert set(rows) == set(EXACT)
    assert all(canonical_name(name) == name for name in rows)


@pytest.mark.parametrize(("name", "parameters"), EXACT.items())
def test_a_row_counts_exactly_what_the_reference_has(
    rows: dict[str, CatalogRow], name: str, parameters: int
) -> None:
    assert rows[name].parameters == parameters


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("match-wrn-1-1", 20.991),
        ("match-wrn-2-1", 43.111),
        ("match-wrn-4-0.5", 24.329),
        ("match-wrn-4-1", 87.352),
        ("match-preresnet-14-1", 17.718),
        ("match-preresnet-14-0.5", 7.315),
    ],
)
def test_without_shared_layers_a_residual_match_model_counts_what_the_paper_prints(
    rows: dict[str, CatalogRow], name: str, millions: float
) -> None:
    row = rows[name]
    assert round(row.trainable / 1e6, 3) == millions
    assert row.trainable == row.parameters - 3_240 - 75_100
    assert int(row.trainable / 1e5) / 10 == row.paper_millions
    assert row.difference == pytest.approx(millions - row.paper_millions, abs=1e-6)


def test_the_paper_truncates_and_the_exceptions_have_a_note(rows: dict[str, CatalogRow]) -> None:
    truncated = {"densenet-bc-112-33": 6.3, "densenet-bc-80-80": 22.4, "densenet-bc-80-120": 50.4}
    assert {name: rows[name].paper_millions for name in truncated} == truncated
    assert rows["match-densenet-14-1-3"].paper_millions == 80.5
    assert rows["match-densenet-14-1-3"].difference == -40.23
    assert "twice" in rows["match-densenet-14-1-3"].note
    assert "fitted" in rows["match-preresnet-14-1"].note
    assert "fitted" in rows["match-preresnet-14-0.5"].note
    assert "106" in rows["densenet-bc-112-33"].note
    assert "BatchNorm" in rows["preresnet-1001"].note


def test_only_shared_layers_are_not_trainable(rows: dict[str, CatalogRow]) -> None:
    for row in rows.values():
        shared = 3_240 + 75_100 if row.name.startswith("match-") else 0
        assert row.parameters - row.trainable == shared


@pytest.mark.parametrize(
    ("name", "gflop"), [("densenet-bc-112-33", 4.8), ("densenet-bc-90-60", 11.9), ("wrn-28-10", 10.5)]
)
def test_an_images_arithmetic_is_that_of_the_references_table(
    rows: dict[str, CatalogRow], name: str, gflop: float
) -> None:
    assert round(rows[name].gflop, 1) == gflop


def test_a_row_has_the_keys_that_the_command_prints(rows: dict[str, CatalogRow]) -> None:
    keys = {"name", "parameters", "trainable", "paper_millions", "difference", "gflop", "note"}
    assert set(asdict(rows["wrn-28-10"])) == keys


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("wrn-28-1", 100, 375_348),  # The rule of the tables; the reference itself says 374,900.
        ("wrn-28-10", 10, 36_479_194),  # As counted in many places for CIFAR-10.
        ("wrn-16-4", 10, 2_748_890),
        ("wrn-40-2", 10, 2_243_546),
        ("densenet-bc-100-12", 10, 769_162),  # These three: Huang et al. print 0.8, 15.3 and 25.6 M.
        ("densenet-bc-250-24", 10, 15_324_406),
        ("densenet-bc-190-40", 10, 25_624_430),
        ("resnet-20", 10, 269_722),  # He et al. print 0.27 and 0.85 M.
        ("resnet-56", 10, 853_018),
        ("preresnet-164", 10, 1_703_258),  # He et al. print 1.7 M.
    ],
)
def test_known_models_beside_the_papers_rows_count_what_is_known(
    name: str, classes: int, parameters: int
) -> None:
    with torch.device("meta"):
        model = build_model(name, classes=classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("wrn-28-2", 1.479),
        ("wrn-28-5", 9.162),
        ("wrn-16-2", 0.70),
        ("resnet-8", 0.08),
        ("resnet-14", 0.18),
        ("resnet-20", 0.28),
        ("densenet-bc-40-12", 0.19),
        ("densenet-bc-100-12", 0.80),
    ],
)
def test_the_small_models_have_the_references_millions(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = build_model(name, classes=100)
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert count == pytest.approx(millions, abs=0.0005 if millions in {1.479, 9.162} else 0.0051)
