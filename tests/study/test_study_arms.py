"""The study that is committed: its arms have the points that were chosen for them."""

from __future__ import annotations

from bancache.study.arms_file import read_study
from benchmarks.harness import RESULTS
from benchmarks.study_arms import tried

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


def test_each_arm_has_the_point_of_the_lowest_error_on_images_that_were_held_out() -> None:
    best = {arm: min(points, key=points.__getitem__) for arm, points in tried().items()}
    trained = [arm for arm in read_study(RESULTS / "study" / "arms.toml").arms if not arm.members]
    assert {FAMILY.get(arm.name, arm.name) for arm in trained} == set(best)
    for arm in trained:
        assert (arm.recipe.lr, arm.recipe.weight_decay) == best[FAMILY.get(arm.name, arm.name)]
