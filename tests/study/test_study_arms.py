"""The study that is committed: its arms have the points that were chosen for them."""

from __future__ import annotations

import re

import pytest
from scipy import stats  # type: ignore[import-untyped]

from bancache.study.arms_file import read_study
from benchmarks.harness import RESULTS
from benchmarks.readme import read_lines
from benchmarks.study import DOCUMENT
from benchmarks.study_arms import ARMS, FOLDERS, figures, tried

# The teacher, and later models of an ensemble, have the point of another arm; so have those that are compared at a common one.
FAMILY = {
    "teacher": "labels",
    "labels-2": "labels",
    "labels-3": "labels",
    "ban-2": "ban-1",
    "ban-3": "ban-1",
    "ban-1-common": "labels",
    "half-common": "labels",
    "weight-2-common": "labels",
}
LONGER_FAMILY = {
    "teacher": "labels-40-epochs",
    "labels": "labels-40-epochs",
    "labels-80-epochs": "labels-40-epochs",
    "ban-1": "ban-1-40-epochs",
}


@pytest.mark.parametrize(("name", "family"), [("arms", FAMILY), ("longer", LONGER_FAMILY)])
def test_each_arm_has_the_point_of_the_lowest_error_on_images_that_were_held_out(
    name: str, family: dict[str, str]
) -> None:
    best = {arm: min(points, key=points.__getitem__) for arm, points in tried().items()}
    trained = [arm for arm in read_study(RESULTS / "study" / f"{name}.toml").arms if not arm.members]
    chosen = {family.get(arm.name, arm.name) for arm in trained}
    # Of labels-20-epochs the choice alone is shown.
    longer = {arm for arm in best if arm.endswith("-epochs")} - {"labels-20-epochs"}
    assert chosen == (longer if name == "longer" else {arm for arm in best if not arm.endswith("-epochs")})
    for arm in trained:
        assert (arm.recipe.lr, arm.recipe.weight_decay) == best[family.get(arm.name, arm.name)]


def test_two_arms_by_hand() -> None:
    """BAN-1 and its baseline: mean, sample standard deviation, and Student's interval of the paired differences."""
    found: dict[str, dict[int, float]] = {"labels": {}, "ban-1": {}}
    for line in read_lines(FOLDERS["arms"] / "results.jsonl"):
        if line["kind"] == "arm" and line["name"] in found:
            found[line["name"]][line["seed"]] = 100 * line["test"]["error"]
    labels, ban = ([found[name][seed] for seed in sorted(found[name])] for name in ("labels", "ban-1"))
    differences = [own - other for own, other in zip(ban, labels, strict=True)]
    # The 97.5 % quantile of Student's t with n - 1 degrees of freedom, from a printed table.
    n, quantile = len(differences), {8: 2.3646, 9: 2.3060, 10: 2.2622}
    center, spread = by_hand(differences)
    half = quantile[n] * spread / n**0.5
    document = DOCUMENT.read_text()
    rows = {
        row[0]: row
        for line in document.partition("<!-- arms -->")[2].partition("<!-- end -->")[0].splitlines()
        if "±" in line
        for row in [line.split(" | ")]
    }
    for row, values in ((rows["| labels"], labels), (rows["| ban-1"], ban)):
        assert numbers(row[2]) == near(*by_hand(values))
        assert row[3] == str(n)
    assert numbers(rows["| ban-1"][4]) == near(center, center - half, center + half)


def test_what_the_study_concludes_stands_after_holms_correction_but_for_two_arms() -> None:
    """docs/study.md names the two, and the number of comparisons."""
    errors: dict[str, dict[int, float]] = {}
    for line in read_lines(FOLDERS["arms"] / "results.jsonl"):
        if line["kind"] == "arm":
            errors.setdefault(line["name"], {})[line["seed"]] = line["test"]["error"]
    compared = {(name, "labels") for name in errors if name != "labels"} | set(ARMS)
    chances = {
        (name, other): stats.ttest_rel(
            *([errors[arm][seed] for seed in range(10)] for arm in (name, other))
        ).pvalue
        for name, other in compared
    }
    rejected = set()
    for rank, pair in enumerate(sorted(chances, key=chances.__getitem__)):
        if chances[pair] > 0.05 / (len(chances) - rank):
            break
        rejected.add(pair)
    alone = {pair for pair, chance in chances.items() if chance <= 0.05}
    assert len(chances) == 38
    assert alone - rejected == {("max-uniform", "labels"), ("weight-2-common", "labels")}


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"[-+]?\d+\.\d\d", cell)]


def near(*values: float) -> object:
    """Equal to two decimals; a mean that lies between two of them may be shown as either."""
    return pytest.approx(list(values), abs=0.005 + 1e-9)


def by_hand(values: list[float]) -> tuple[float, float]:
    center = sum(values) / len(values)
    return center, (sum((value - center) ** 2 for value in values) / (len(values) - 1)) ** 0.5


def test_the_figure_is_drawn_from_the_lines() -> None:
    """`python -m benchmarks.study` draws it."""
    for path, drawn in figures().items():
        assert path.read_text() == drawn
