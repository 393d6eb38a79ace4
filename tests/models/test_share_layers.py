"""First and last layer, taken from the teacher."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import nn

from bancache.errors import UsageError
from bancache.models import build_model, share_layers
from bancache.models.match_frame import Frame, ShareMode

ENDS = {"first_layer.weight", "last_layer.weight", "last_layer.bias"}


@pytest.fixture
def nets() -> tuple[Frame, Frame]:
    torch.manual_seed(0)
    student = build_model("match-wrn-1-0.5@densenet-bc-10-4", classes=5)
    teacher = build_model("densenet-bc-10-4", classes=5)
    assert isinstance(student, Frame)
    assert isinstance(teacher, Frame)
    return student, teacher


@pytest.mark.parametrize("mode", ["copy", "freeze"])
def test_shared_ends_have_the_teachers_numbers_and_nothing_else_changes(
    nets: tuple[Frame, Frame], mode: ShareMode
) -> None:
    student, teacher = nets
    with torch.no_grad():
        teacher.last_layer.bias.fill_(0.25)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    share_layers(student, teacher, mode)
    for key, value in student.state_dict().items():
        assert torch.equal(value, teacher.state_dict()[key] if key in ENDS else before[key])
    frozen = {key for key, value in student.named_parameters() if not value.requires_grad}
    assert frozen == (ENDS if mode == "freeze" else set())
    assert all(parameter.requires_grad for parameter in teacher.parameters())


def test_copied_ends_are_not_the_teachers_own(nets: tuple[Frame, Frame]) -> None:
    student, teacher = nets
    share_layers(student, teacher, "copy")
    with torch.no_grad():
        student.first_layer.weight.zero_()
    assert teacher.first_layer.weight.abs().sum() > 0


def test_frozen_ends_stay_while_the_rest_learns(nets: tuple[Frame, Frame]) -> None:
    student, teacher = nets
    share_layers(student, teacher, "freeze")
    learning = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1, weight_decay=0.1)
    before = {key: value.clone() for key, value in student.named_parameters()}
    student(torch.randn(4, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    same = {key for key, value in student.named_parameters() if torch.equal(value, before[key])}
    assert same == ENDS


def test_none_changes_nothing_even_where_shapes_differ(nets: tuple[Frame, Frame]) -> None:
    student, _ = nets
    before = {key: value.clone() for key, value in student.state_dict().items()}
    share_layers(student, build_model("wrn-10-1", classes=9), "none")
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())


@pytest.mark.parametrize(
    ("teacher", "classes", "end", "shapes"),
    [
        ("wrn-10-1", 5, "first_layer", ["(8, 3, 3, 3)", "(16, 3, 3, 3)"]),
        ("densenet-bc-10-4", 6, "last_layer", ["(5,)", "(6,)"]),
    ],
)
def test_ends_of_other_shapes_are_refused_with_both_and_nothing_is_copied(
    nets: tuple[Frame, Frame], teacher: str, classes: int, end: str, shapes: list[str]
) -> None:
    student, _ = nets
    before = {key: value.clone() for key, value in student.state_dict().items()}
    with pytest.raises(UsageError, match=end) as caught:
        share_layers(student, build_model(teacher, classes=classes), "freeze")
    assert all(shape in str(caught.value) for shape in shapes)
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_a_net_without_named_ends_is_refused(nets: tuple[Frame, Frame]) -> None:
    with pytest.raises(UsageError, match=r"\(Linear\) has no first_layer"):
        share_layers(nets[0], nn.Linear(2, 2), "copy")


def test_an_unknown_mode_is_refused(nets: tuple[Frame, Frame]) -> None:
    with pytest.raises(UsageError, match="not 'share'"):
        share_layers(*nets, cast("ShareMode", "share"))
