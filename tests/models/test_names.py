"""Names, aliases, and the errors for unknown names."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from bancache.errors import UsageError
from bancache.models import canonical_name, model_names


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("densenet-bc-112-33", "densenet-bc-112-33"),
        ("densenet-bc-116-33", "densenet-bc-112-33"),
        ("densenet-bc-106-33", "densenet-bc-112-33"),
        ("DenseNetBC-80-120", "densenet-bc-80-120"),
        ("densenet-bc-90-60", "densenet-bc-90-60"),
        ("densenet-bc-90-12", "densenet-bc-88-12"),
        ("Wide-ResNet-28-10", "wrn-28-10"),
        (" WRN-16-2 ", "wrn-16-2"),
        ("Match-Wide-ResNet-4-0.5", "match-wrn-4-0.5"),
        ("match-wrn-4-0.50", "match-wrn-4-0.5"),
        ("match-wrn-4-1.0", "match-wrn-4-1"),
        ("Match-Pre-ResNet-14-1", "match-preresnet-14-1"),
        ("match-densenet-14-0.75-1.50", "match-densenet-14-0.75-1.5"),
        ("match-wrn-1-1@densenet-bc-90-60", "match-wrn-1-1"),
        ("match-wrn-1-1@densenet-bc-116-33", "match-wrn-1-1@densenet-bc-112-33"),
        ("convnet", "convnet-16"),
        ("torchvision:resnet18", "torchvision:resnet18"),
        ("timm:vit_tiny_patch16_224.augreg_in21k", "timm:vit_tiny_patch16_224.augreg_in21k"),
    ],
)
def test_what_a_user_types_has_one_canonical_spelling(typed: str, canonical: str) -> None:
    assert canonical_name(typed) == canonical
    assert canonical_name(canonical) == canonical


def test_listed_names_are_canonical_and_differ() -> None:
    names = model_names()
    assert [canonical_name(name) for name in names] == list(names)
    assert len(set(names)) == len(names)


def test_the_papers_rows_come_first_in_its_order() -> None:
    assert model_names()[:8] == (
        "densenet-bc-112-33",
        "densenet-bc-90-60",
        "densenet-bc-80-80",
        "densenet-bc-80-120",
        "preresnet-1001",
        "wrn-28-10",
        "wrn-28-20",
        "match-preresnet-14-0.5",
    )


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("wrm-28-10", "wrn-28-10"),
        ("densnet-bc-90-60", "densenet-bc-90-60"),
        ("resnet20", "resnet-20"),
        ("match-wrn-4", "match-wrn-4-1"),
        ("match-densenet-7-1", "match-densenet-7-1-2"),
        ("match-wrn-1.5-1", "match-wrn-1-1"),
        ("match-wrn-1-0", "match-wrn-1-1"),
        ("wrn-28-0", "wrn-28-10"),
        ("preresnet-20.5", "preresnet-1001"),
        ("wrn-28-10@densenet-bc-90-60", "densenet-bc-90-60"),
        ("torchvision", "torchvision:resnet18"),
        ("resnet18", "torchvision:resnet18 or timm:resnet18"),
        ("efficientnet_b0.ra_in1k", "timm:efficientnet_b0.ra_in1k"),
        ("zzz", "the families: wrn-D-K"),
        ("", "the families: wrn-D-K"),
    ],
)
def test_an_unknown_name_gets_the_nearest_ones(typed: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(typed))) as caught:
        canonical_name(typed)
    assert nearest in caught.value.hint


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("wrn-27-10", "the nearest: wrn-22-10 or wrn-28-10"),
        ("wrn-4-1", "the nearest: wrn-10-1"),
        ("wrn-1-1", "the nearest: wrn-10-1"),
        ("preresnet-32", "the nearest: preresnet-29 or preresnet-38"),
        ("resnet-18", "the nearest: resnet-14 or resnet-20"),
        ("densenet-bc-9-12", "the nearest: densenet-bc-10-12"),
    ],
)
def test_a_depth_that_a_family_lacks_gets_its_neighbors(typed: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        canonical_name(typed)
    assert hint in caught.value.hint


def test_a_match_model_follows_only_a_densenet() -> None:
    with pytest.raises(UsageError, match="match-wrn-1-1@wrn-28-10"):
        canonical_name("match-wrn-1-1@wrn-28-10")


def test_names_cost_no_torch() -> None:
    code = (
        "import sys, bancache.models as m; m.model_names(); m.canonical_name('wrn-28-10'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_rooms_public_names_resolve() -> None:
    import bancache.models

    for name in bancache.models.__all__:
        assert callable(getattr(bancache.models, name))
    with pytest.raises(AttributeError, match="'nothing'"):
        bancache.models.nothing  # noqa: B018
