"""DenseNet's checkpointed activations, and the channels that a match model takes from it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bancache.models import build_model
from bancache.models.densenet import DenseBlock, Skeleton, densenet, densenet_skeleton


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    models = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        models.append(build_model(name, classes=5, checkpoint_activations=checkpointed))
    return models[0], models[1]


@pytest.mark.parametrize("name", ["densenet-bc-22-4", "match-densenet-3-0.5-2@densenet-bc-22-4"])
def test_checkpointed_activations_change_no_bit_of_values_gradients_or_statistics(name: str) -> None:
    batches = torch.randn(3, 6, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    plain, saving = pair(name)
    for model in (plain, saving):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for batch in batches:
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
    one, two = plain.state_dict(), saving.state_dict()
    assert one.keys() == two.keys()
    assert [key for key in one if not torch.equal(one[key], two[key])] == []
    seen = [int(value) for key, value in two.items() if key.endswith("num_batches_tracked")]
    assert seen == [3] * len(seen)


def saved_bytes(block: DenseBlock) -> int:
    """Bytes of distinct storages that a training step keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = block(torch.randn(4, 8, 16, 16))
    assert out.shape == (4, 8 + 4 * len(block.units), 16, 16)
    return sum(kept.values())


def test_checkpointed_activations_keep_memory_linear_in_the_units() -> None:
    plain, saving = (
        [saved_bytes(DenseBlock(8, 4, units, checkpointed=checkpointed)) for units in (6, 12, 24)]
        for checkpointed in (False, True)
    )
    assert saving[2] < 2.3 * saving[1] < 5 * saving[0]
    assert plain[2] > 3 * plain[1]
    assert saving[2] < 0.35 * plain[2]


@pytest.mark.parametrize(
    ("depth", "growth", "entering", "leaving"),
    [
        (112, 33, (66, 313, 437), (313, 437, 998)),
        (90, 60, (120, 480, 660), (480, 660, 750)),
        (80, 80, (160, 560, 760), (560, 760, 860)),
        (80, 120, (240, 840, 1140), (840, 1140, 1290)),
        (100, 12, (24, 108, 150), (108, 150, 342)),
    ],
)
def test_channels_around_the_blocks_are_those_of_the_reference(
    depth: int, growth: int, entering: tuple[int, int, int], leaving: tuple[int, int, int]
) -> None:
    assert densenet_skeleton(depth, growth) == Skeleton(entering, leaving)
    with torch.device("meta"):
        model = densenet(depth, growth, channels=3, classes=10)
    assert model.first_layer.weight.shape[0] == entering[0]
    assert model.last_layer.weight.shape[1] == leaving[2]


def test_only_the_papers_three_wide_rows_have_a_third_1x1() -> None:
    thirds = {(90, 60): True, (80, 80): True, (80, 120): True, (112, 33): False, (100, 12): False}
    for (depth, growth), third in thirds.items():
        with torch.device("meta"):
            model = densenet(depth, growth, channels=3, classes=10)
        transitions = [stage.get_submodule("transition") for stage in model.stages]
        assert [isinstance(part, nn.Identity) for part in transitions] == [False, False, not third]
