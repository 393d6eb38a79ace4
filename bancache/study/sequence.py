"""The study that a born-again sequence is: its arms follow from the number of generations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bancache.study.arms import Arm, Study
from bancache.study.experiment import Experiment
from bancache.training.recipe import loss_label


def study_of(experiment: Experiment) -> Study:
    """Return the study that an experiment is."""
    return Study(
        data=experiment.data,
        architecture=experiment.architecture,
        amp=experiment.recipe.amp,
        views=experiment.views,
        num_views=experiment.num_views,
        encoding=experiment.encoding,
        batch_size=experiment.batch_size,
        seeds=experiment.seeds,
        arms=tuple(_arms(experiment)),
        profile=experiment.profile,
    )


def _arms(experiment: Experiment) -> Iterator[Arm]:
    """Yield the ensembles ``Ens*k``, generation 0 or a given teacher, and its students; then ``Ctl*k`` and the controls.

    Ensembles stand before their members because their result lines do.
    """
    recipe, numbers = experiment.recipe, range(1, experiment.generations + 1)
    first = experiment.teacher
    names = ["teacher" if first else "baseline", *(f"BAN-{k}" for k in numbers)]
    loss = loss_label(experiment.to_tables()["recipe"])
    yield from _ensembles(experiment, "Ens", names[1:], {"loss": loss}, "generations")
    for k, name in enumerate(names):
        yield Arm(
            name=name,
            file=f"gen{k}",
            recipe=recipe,
            start=k,
            generation=k,
            teacher=names[k - 1] if k else None,
            beside=tuple(names[:k]),
            given=None if k else first,
            line=_line_of_given(experiment) if first and not k else {},
        )
    if not experiment.controls:
        return
    labels = [f"labels-{k}" for k in numbers]
    yield from _ensembles(experiment, "Ctl", labels, {"loss": "labels"}, "members")
    for k, name in enumerate(labels, 1):
        line = {"kind": "control", "role": "labels", "member": k}
        beside = (names[0], *labels[: k - 1])
        yield Arm(name=name, file=f"labels{k}", recipe=recipe, start=k, beside=beside, line=line)
    yield Arm(
        name="weight-2",
        file="labels1-weight2",
        recipe=recipe,
        label_weight=2.0,
        beside=(names[0],),
        line={"kind": "control", "role": "weight-2", "member": 1},
    )


def _line_of_given(experiment: Experiment) -> dict[str, Any]:
    """Return what the line of a given teacher says of the sequence."""
    data = experiment.data
    return {"kind": "teacher", "generation": 0, "loss": "labels", "data": data.source, "limit": data.limit}


def _ensembles(
    experiment: Experiment, name: str, members: Sequence[str], line: dict[str, Any], key: str
) -> Iterator[Arm]:
    """Yield the ensembles ``name*2``, ``name*3``, … of members 1 to k; generation 0 is not a member."""
    for size in range(2, len(members) + 1):
        numbers = {key: list(range(1, size + 1))}
        yield Arm(
            name=f"{name}*{size}",
            file="",
            recipe=experiment.recipe,
            members=tuple(members[:size]),
            line={"kind": "ensemble", **line, **numbers},
        )
