"""The students keep their teacher's hidden shapes, whatever is in their blocks."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from bancache.errors import UsageError
from bancache.models import build_model, model_names
from bancache.models.build import build_skeleton
from bancache.models.match_frame import Frame

MATCH_ROWS = [name for name in model_names() if name.startswith("match-")]


def build(name: str, classes: int) -> Frame:
    model = build_model(name, classes=classes)
    assert isinstance(model, Frame)
    return model


@cache
def shaped(name: str) -> Frame:
    """A model of 100 classes without numbers, for all tests that look at shapes."""
    model = build_skeleton(name, classes=100)
    assert isinstance(model, Frame)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # on the meta device it takes most of the time
            module.forward = lambda input: input  # type: ignore[method-assign]
    return model


def hidden_shapes(model: Frame, image: Tensor) -> list[tuple[int, ...]]:
    """Shape after each transition, before the average that follows two of them."""
    shapes: list[tuple[int, ...]] = []
    for stage in model.stages:
        stage.get_submodule("transition").register_forward_hook(
            lambda _, __, out: shapes.append(tuple(out.shape))
        )
    with torch.no_grad():
        model(image)
    return shapes


def test_there_are_thirteen_match_rows() -> None:
    assert len(MATCH_ROWS) == 13


@pytest.mark.parametrize("name", [*MATCH_ROWS, "densenet-bc-90-60"])
def test_hidden_states_after_each_transition_are_those_of_the_teacher(name: str) -> None:
    shapes = hidden_shapes(shaped(name), torch.empty(2, 3, 32, 32, device="meta"))
    assert shapes == [(2, 480, 32, 32), (2, 660, 16, 16), (2, 750, 8, 8)]


@pytest.mark.parametrize("name", ["match-wrn-2-0.5", "match-preresnet-2-1", "match-densenet-2-0.5-1.5"])
@pytest.mark.parametrize(
    ("teacher", "hidden"),
    [
        ("densenet-bc-16-4", [(2, 8, 16, 16), (2, 8, 8, 8), (2, 16, 4, 4)]),
        ("densenet-bc-40-12", [(2, 48, 16, 16), (2, 60, 8, 8), (2, 132, 4, 4)]),
    ],
)
def test_another_densenets_frame_gives_its_hidden_states(
    name: str, teacher: str, hidden: list[tuple[int, ...]]
) -> None:
    model, teaching = build(f"{name}@{teacher}", 4), build(teacher, 4)
    assert hidden_shapes(model, torch.zeros(2, 3, 16, 16)) == hidden
    assert model.first_layer.weight.shape == teaching.first_layer.weight.shape
    assert model.last_layer.weight.shape == teaching.last_layer.weight.shape


@pytest.mark.parametrize(
    ("name", "growths"),
    [
        ("match-densenet-7-1-2", (120, 120, 120)),
        ("match-densenet-14-0.5-1", (30, 30, 30)),
        ("match-densenet-14-0.75-1.5", (45, 45, 45)),
        ("match-densenet-14-1-3", (94, 107, 113)),
        ("match-densenet-28-1-2", (30, 30, 30)),
        ("match-densenet-42-1-2", (20, 20, 20)),
        ("match-densenet-56-1-2", (15, 15, 15)),
    ],
)
def test_growths_are_those_of_the_reference(name: str, growths: tuple[int, int, int]) -> None:
    weights = shaped(name).state_dict()
    made = []
    for i in range(3):
        keys = [
            key for key in weights if key.startswith(f"stages.{i}.block") and key.endswith("conv.2.weight")
        ]
        made.append({int(weights[key].shape[0]) for key in keys})
        assert len(keys) == int(name.split("-")[2])
    assert made == [{growth} for growth in growths]


def test_the_teacher_is_match_densenet_14_1_2() -> None:
    shapes = [
        {key: value.shape for key, value in shaped(name).state_dict().items()}
        for name in ("match-densenet-14-1-2", "densenet-bc-90-60")
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("match-preresnet-14-1", (108, 149, 169)),
        ("match-preresnet-14-0.5", (73, 100, 114)),
        ("match-preresnet-4-1", (120, 165, 187)),
        ("match-preresnet-14-1@densenet-bc-40-12", (12, 15, 33)),
    ],
)
def test_inner_widths_are_fitted_for_the_printed_rows_and_a_quarter_elsewhere(
    name: str, inner: tuple[int, int, int]
) -> None:
    weights = shaped(name).state_dict()
    assert tuple(int(weights[f"stages.{i}.block.0.conv2.weight"].shape[0]) for i in range(3)) == inner


def test_blocks_that_could_not_grow_are_refused_with_their_numbers() -> None:
    with pytest.raises(UsageError, match=r"block 1 .*120 channels .* 0 "):
        build_model("match-densenet-500-1-1", classes=10)
