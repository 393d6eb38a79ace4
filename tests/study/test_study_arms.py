"""The study that is committed: its arms have the points that were chosen for them."""

from __future__ import annotations

from bancache.study.arms_file import read_study
from benchmarks.harness import RESULTS
from benchmarks.readme import read_lines

STUDY = RESULTS / "study"
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
# SGD with a loss times f is SGD with the loss at f times the rate and 1 / f of the decay.
SAME = {"weight-2": ("labels", 2.0), "half": ("ban-1", 0.5)}


def test_each_arm_has_the_point_of_the_lowest_error_on_images_that_were_held_out() -> None:
    tried: dict[str, dict[tuple[float, float], tuple[float, float]]] = {}
    for line in read_lines(STUDY / "choice.jsonl"):
        arm, factor = SAME.get(line["arm"], (line["arm"], 1.0))
        point, score = (line["lr"] * factor, line["weight_decay"] / factor), (line["error"], line["nll"])
        assert tried.setdefault(arm, {}).setdefault(point, score) == score
    best = {arm: min(points, key=points.__getitem__) for arm, points in tried.items()}
    trained = [arm for arm in read_study(STUDY / "arms.toml").arms if not arm.members]
    assert {FAMILY.get(arm.name, arm.name) for arm in trained} == set(best)
    for arm in trained:
        assert (arm.recipe.lr, arm.recipe.weight_decay) == best[FAMILY.get(arm.name, arm.name)]
