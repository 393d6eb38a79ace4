"""Which operations views go through, as often and as strongly as in timm and torchvision, and what they do to pixels."""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.operating import SHAPES, defined, views_and_operations
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from scipy.stats import chi2_contingency, kstest  # type: ignore[import-untyped]

from bancache.errors import UsageError
from bancache.philox import philox, split_seed
from bancache.views import operations as ops
from bancache.views.boxes import Words
from bancache.views.operations import OPERATIONS, Policy, turns
from bancache.views.torch_operations import apply, erase, grouped, masked, mix

DRAWS = 6000
CERTAIN = 1e-3  # seeds are fixed: a smaller p-value is another distribution


def words(count: int) -> Words:
    samples = np.arange(count, dtype=np.uint64)
    return lambda lane: philox(split_seed(11), samples, 5, lane, 0)


def pairs(name: str, count: int) -> list[tuple[str, int]]:
    """Operations and magnitudes of all slots."""
    drawn = Policy.parse(name).draw(words(count)).reshape(-1, 2)
    return [(OPERATIONS[number], magnitude) for number, magnitude in drawn.tolist()]


@pytest.mark.parametrize(
    ("name", "slots"),
    [("rand-m9-n2", 2), ("rand-m0-n1", 1), ("rand-m10-n4", 4), ("trivial", 1), ("color0.4", 3)],
)
def test_a_policy_draws_a_number_and_a_magnitude_for_each_slot(name: str, slots: int) -> None:
    policy = Policy.parse(name)
    drawn = policy.draw(words(5))
    assert (policy.name, policy.slots, drawn.dtype.name, drawn.shape) == (
        name,
        slots,
        "int32",
        (5, 2 * slots),
    )
    np.testing.assert_array_equal(drawn[:3], policy.draw(words(3)), "other views in a batch change nothing")


@pytest.mark.parametrize(
    "name", ["rand-m11-n2", "rand-m9-n5", "rand-m9", "color0", "color1.5", "color0.40", "auto"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        Policy.parse(name)
    assert "rand-m9-n2" in refused.value.hint


def auto_augment() -> Any:
    """timm's module, without all of timm's models, which take long to import."""
    timm = find_spec("timm")
    if timm is None or timm.origin is None:
        pytest.skip("timm is not installed")
    spec = spec_from_file_location("timm_auto_augment", Path(timm.origin).parent / "data" / "auto_augment.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hyphened(name: str) -> str:
    """Return our name of an operation for a library's, such as ``shear-x`` for ``ShearX``."""
    return re.sub(r"(?<=.)([A-Z])", r"-\1", name).lower().replace("auto-contrast", "autocontrast")


def test_rand_draws_as_timm_does() -> None:
    timm = auto_augment()
    transform = timm.rand_augment_transform("rand-m9-n2", {"img_mean": (128, 128, 128)})
    units = {"Rotate": 2.0, **dict.fromkeys(("Posterize", "Solarize", "SolarizeAdd"), 1.0)}
    units |= dict.fromkeys(("Color", "Contrast", "Brightness", "Sharpness"), 256.0)
    seen: Counter[tuple[str, int]] = Counter()

    def recorded(name: str) -> Callable[..., None]:
        def record(view: None, *magnitude: float, **_: Any) -> None:
            seen[
                hyphened(name.removesuffix("Rel")),
                math.floor(units.get(name, 65536.0) * magnitude[0] + 0.5) if magnitude else 0,
            ] += 1

        return record

    for operation in transform.ops:
        operation.aug_fn = recorded(operation.name)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002  # timm draws from it
    for _ in range(DRAWS):
        transform(None)
    seen["identity", 0] = 2 * DRAWS - seen.total()
    found = Counter(pairs("rand-m9-n2", DRAWS))
    assert set(found) == set(seen)
    assert chi2_contingency([[counts[key] for key in seen] for counts in (seen, found)]).pvalue > CERTAIN


@pytest.mark.parametrize("level", range(11))
def test_rand_has_timms_magnitudes_at_every_level(level: int) -> None:
    timm = auto_augment()
    found = dict(pairs(f"rand-m{level}-n2", 500))
    for name, unit in (("Rotate", 2), ("Posterize", 1), ("Solarize", 1), ("Color", 256), ("ShearX", 65536)):
        theirs = timm.LEVEL_TO_ARG[name](level, {})[0]
        assert abs(found[hyphened(name)]) == math.floor(abs(theirs) * unit + 0.5)
    assert found["solarize-add"] == timm.LEVEL_TO_ARG["SolarizeAdd"](level, {})[0]
    assert abs(found["translate-y"]) == round(65536 * abs(timm.LEVEL_TO_ARG["TranslateYRel"](level, {})[0]))


@pytest.mark.slow  # torchvision takes long to import
def test_trivial_draws_as_torchvision_does(monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = pytest.importorskip("torchvision.transforms.autoaugment")
    factors = ("color", "contrast", "brightness", "sharpness")
    # A translation by 32 pixels is one by 32/224 of a side.
    units = {"rotate": 2.0, **dict.fromkeys(("posterize", "solarize"), 1.0), **dict.fromkeys(factors, 256.0)}
    units |= dict.fromkeys(("translate-x", "translate-y"), 65536 / 224)
    seen: dict[str, list[int]] = {}

    def record(view: None, name: str, magnitude: float, **_: Any) -> None:
        name = hyphened(name)
        # Thresholds are not whole: the next integer does the same.
        ours = math.ceil(magnitude) if name == "solarize" else round(magnitude * units.get(name, 65536.0))
        seen.setdefault(name, []).append(ours + 256 if name in factors else ours)

    monkeypatch.setattr(torchvision, "_apply_op", record)
    transform, view = torchvision.TrivialAugmentWide(), torch.zeros(3, 2, 2, dtype=torch.uint8)
    torch.manual_seed(1)
    for _ in range(DRAWS):
        transform(view)
    found: dict[str, list[int]] = {}
    for name, magnitude in pairs("trivial", DRAWS):
        found.setdefault(name, []).append(magnitude)
    assert set(found) == set(seen)
    assert chi2_contingency([[len(drawn[name]) for name in seen] for drawn in (seen, found)]).pvalue > CERTAIN
    possible = set(pairs("trivial", 20 * DRAWS))
    assert {(name, magnitude) for name, drawn in seen.items() for magnitude in drawn} <= possible
    assert len(possible) == 9 * 61 + 31 + 7 + 3
    for name, drawn in seen.items():
        assert kstest(drawn, found[name]).pvalue > CERTAIN, name


@pytest.mark.slow
def test_color_draws_as_torchvisions_jitter_does() -> None:
    torchvision = pytest.importorskip("torchvision.transforms")
    jitter = torchvision.ColorJitter(0.4, 0.4, 0.4)
    torch.manual_seed(1)
    seen = [
        jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, None) for _ in range(DRAWS)
    ]
    drawn = Policy.parse("color0.4").draw(words(DRAWS)).reshape(DRAWS, 3, 2)
    kinds = [OPERATIONS.index(name) for name in ("brightness", "contrast", "color")]
    for place, kind in enumerate(kinds):
        ours = drawn[..., 1][drawn[..., 0] == kind] / 256
        assert len(ours) == DRAWS, "each once a view"
        assert kstest(ours, [row[1 + place] for row in seen]).pvalue > CERTAIN
    theirs = Counter(tuple(kinds[i] for i in order.tolist() if i < 3) for order, *_ in seen)
    orders = Counter(map(tuple, drawn[..., 0].tolist()))
    assert len(orders) == 6
    assert chi2_contingency([[counts[key] for key in theirs] for counts in (theirs, orders)]).pvalue > CERTAIN


@pytest.mark.parametrize("kind", SHAPES)
def test_operations_are_what_their_definition_says(kind: str) -> None:
    views, drawn = views_and_operations(kind)
    expected = [defined(view, *row) for view, row in zip(views, drawn.tolist(), strict=True)]
    np.testing.assert_array_equal(apply(torch.from_numpy(views), torch.from_numpy(drawn)).numpy(), expected)


@pytest.mark.parametrize("kind", SHAPES)
def test_without_groups_as_on_a_gpu_the_bits_are_the_same(kind: str) -> None:
    views, drawn = (torch.from_numpy(part) for part in views_and_operations(kind, slots=2))
    number, magnitude = drawn[:, 2].long(), drawn[:, 3]
    assert torch.equal(masked(views, number, magnitude), grouped(views, number, magnitude))
    assert torch.equal(apply(apply(views, drawn[:, :2]), drawn[:, 2:]), apply(views, drawn))


def photograph(height: int = 70, width: int = 96) -> NDArray[np.uint8]:
    """A picture with smooth parts, edges, noise, and a histogram that is not flat."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([90 + 60 * np.sin(x / 9 + c) * np.cos(y / 7) + 30 * (x > 50) for c in range(3)], axis=2)
    return np.clip(waves + rng.normal(0, 6, waves.shape), 0, 255).astype(np.uint8)


def pillow(name: str, magnitude: int, picture: Image.Image) -> Image.Image:
    width, height = picture.size
    part = magnitude / 65536
    enhance = {"color": "Color", "contrast": "Contrast", "brightness": "Brightness", "sharpness": "Sharpness"}
    if name in enhance:
        return getattr(ImageEnhance, enhance[name])(picture).enhance(magnitude / 256)  # type: ignore[no-any-return]
    if name == "rotate":
        return picture.rotate(magnitude / 2, Image.Resampling.NEAREST, fillcolor=(128, 128, 128))
    matrix = {
        "shear-x": (1, part, -part * height / 2, 0, 1, 0),
        "shear-y": (1, 0, 0, part, 1, -part * width / 2),
        "translate-x": (1, 0, part * width, 0, 1, 0),
        "translate-y": (1, 0, 0, 0, 1, part * height),
    }.get(name)
    if matrix is not None:
        nearest, affine = Image.Resampling.NEAREST, Image.Transform.AFFINE
        return picture.transform(picture.size, affine, matrix, nearest, fillcolor=(128, 128, 128))
    return getattr(ImageOps, name)(picture, *([magnitude] if magnitude else []))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "magnitude", "apart"),
    [
        *[
            ("autocontrast", 0, 1),
            ("equalize", 0, 0),
            ("invert", 0, 0),
            ("posterize", 3, 0),
            ("solarize", 230, 0),
        ],
        *[
            (name, f, 1)
            for name in ("color", "contrast", "brightness", "sharpness")
            for f in (3, 100, 440, 509)
        ],
        *[
            (f"{how}-{axis}", n, 0)
            for how in ("shear", "translate")
            for axis in "xy"
            for n in (17695, -26542)
        ],
    ],
)
def test_pixels_are_pillows_or_differ_by_one(name: str, magnitude: int, apart: int) -> None:
    picture = photograph()
    expected = np.asarray(pillow(name, magnitude, Image.fromarray(picture)), np.int64)
    row = torch.tensor([[OPERATIONS.index(name), magnitude]])
    assert np.abs(apply(torch.from_numpy(picture[None]), row)[0].numpy() - expected).max() <= apart


@pytest.mark.parametrize("half_degrees", [54, -54, 270, -33])
def test_rotations_are_pillows_but_where_a_pixel_ends(half_degrees: int) -> None:
    picture = photograph()
    expected = np.asarray(pillow("rotate", half_degrees, Image.fromarray(picture)))
    row = torch.tensor([[ops.ROTATE, half_degrees]])
    assert (apply(torch.from_numpy(picture[None]), row)[0].numpy() != expected).mean() < 0.01


def test_angles_are_sines_rounded_to_nearest() -> None:
    angles = np.deg2rad(np.arange(-270, 271) / 2)
    np.testing.assert_array_equal(
        turns(), np.rint(65536 * np.stack([np.cos(angles), np.sin(angles)], axis=1))
    )


def test_a_color_fills_the_box_from_rounded_edge_to_rounded_edge() -> None:
    views = torch.full((2, 4, 8, 3), 9, dtype=torch.uint8)
    box = [
        65536 // 4,
        65536 // 16,
        65536 // 2,
        65536 // 4,
    ]  # rows 1 to 2; columns 0.5 to 2.5, which is 1 to 2
    erased = erase(views, torch.tensor([box, [0, 0, 0, 65536]]), torch.tensor([1 | 2 << 8 | 255 << 16, 77]))
    expected = np.full((4, 8, 3), 9)
    expected[1:3, 1:3] = 1, 2, 255
    np.testing.assert_array_equal(erased[0], expected)
    assert torch.equal(erased[1], views[1]), "a height of 0 erases nothing"


def test_views_show_their_partner_in_the_cut_or_blended() -> None:
    views = torch.full((3, 4, 4, 1), 10, dtype=torch.uint8)
    partners = torch.full((3, 4, 4, 1), 201, dtype=torch.uint8)
    cut = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 0], [32768, 0, 32768, 16384]])
    mixed = mix(views, partners, torch.tensor([256, 64, 3]), cut)
    assert set(mixed[0].flatten().tolist()) == {10}
    assert set(mixed[1].flatten().tolist()) == {153}  # (64·10 + 192·201 + 128) >> 8
    expected = np.full((4, 4), 10)
    expected[2:, :1] = 201
    np.testing.assert_array_equal(mixed[2, :, :, 0], expected)


def golden_views() -> torch.Tensor:
    pixels = philox(split_seed(2), np.arange(24 * 9 * 11 * 3), 0, 0, 0)[0] >> np.uint64(24)
    return torch.from_numpy(pixels.astype(np.uint8).reshape(24, 9, 11, 3))


# A change here changes the pixels of caches on disk.
GOLDEN = {
    "rand-m9-n2": ("9079f8dfe643fab9", "dbcb19c38474164f"),
    "trivial": ("ac9ecf714c26e1ec", "ed50e8ba8c171a5e"),
    "color0.4": ("9e76acf45c1e05fe", "f18d8555d8882502"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_what_is_drawn_and_what_it_does_are_frozen(name: str) -> None:
    drawn = Policy.parse(name).draw(words(1000))
    pixels = apply(golden_views(), torch.from_numpy(drawn[:24])).numpy()
    hashes = (
        hashlib.sha256(part).hexdigest()[:16] for part in (drawn.astype("<i4").tobytes(), pixels.tobytes())
    )
    assert tuple(hashes) == GOLDEN[name]
