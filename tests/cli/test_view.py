"""``bancache view``: the pictures that teacher and student see, and what was done to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.calling import call, refuse, succeed
from contracts.tiny import CLASSES, After, dump_tiny, photographs
from numpy.typing import NDArray
from PIL import Image

from bancache.cache.reader import open_cache
from bancache.dumping import dump
from bancache.errors import StoppedError
from bancache.loader.open import open_loader
from bancache.losses.weights import MixedLabels
from bancache.models.teacher import load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.views import ViewSpace
from bancache.views.factory import choose_renderer
from bancache.views.model_input import Normalization
from bancache.views.operations import OPERATIONS
from bancache.views.pictures import Pictures
from bancache.views.record import LAMBDA, WHOLE

EVERYTHING = "rrc-flip-rand-m9-n2-erase0.25-mixup0.8-cutmix1.0"
LATTICE = ViewSpace.parse("crop1-flip", seed=5)
MIXED = ViewSpace.parse(EVERYTHING, seed=5)
PLAIN = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def caches(
    tmp_path_factory: pytest.TempPathFactory, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> Path:
    """A folder with a cache of padded crops, one of views with everything, and one that a teacher saw at another size."""
    folder = tmp_path_factory.mktemp("caches")
    dump_tiny(teacher_path, spec, data, folder / "lattice.zarr", space=LATTICE)
    dump_tiny(teacher_path, spec, data, folder / "mixed.zarr", space=MIXED, num_views=10)
    dump_tiny(teacher_path, spec, data, folder / "larger.zarr", space=LATTICE, size=(20, 20))
    return folder


def rendered(
    data: ImageSet, space: ViewSpace, sample: int, view: int, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Return a view as the renderer of the whole data set gives it."""
    renderer = choose_renderer(data.images, space, PLAIN, size=size)
    samples = np.array([sample])
    pixels = renderer.pixels(*renderer.to_device(samples, space.view_ids(samples, view)))
    return np.asarray(pixels[0])


def record(data: ImageSet, space: ViewSpace, sample: int, view: int) -> list[int]:
    samples = np.array([sample])
    row: list[int] = space.records(samples, space.view_ids(samples, view), Pictures.of(data.images).sizes)[
        0
    ].tolist()
    return row


def picture(seen: dict[str, Any]) -> NDArray[np.uint8]:
    return np.asarray(Image.open(seen["file"]))


def test_each_sample_is_shown_in_each_view(caches: Path, data: ImageSet, tmp_path: Path) -> None:
    out = tmp_path / "new" / "pictures"
    said = succeed("view", caches / "lattice.zarr", "--sample", "7,90", "--view", "0,3", "--out", out)
    assert set(said) == {"views", "notes", "warnings"}
    assert [(one["sample"], one["view"]) for one in said["views"]] == [(7, 0), (7, 3), (90, 0), (90, 3)]
    for one in said["views"]:
        assert set(one) == {"sample", "view", "label", "path", "params", "teacher", "student"}
        assert (one["label"], one["path"]) == (CLASSES[data.labels[one["sample"]]], None)
        for who in ("teacher", "student"):
            name = f"sample{one['sample']}-view{one['view']}-{who}.png"
            assert one[who] == {"size": [10, 10], "file": str(out / name)}
    assert len(list(out.iterdir())) == 8


def test_a_picture_has_the_pixels_of_the_renderer(caches: Path, data: ImageSet, tmp_path: Path) -> None:
    for cache, space in (("lattice.zarr", LATTICE), ("mixed.zarr", MIXED)):
        said = succeed(
            *("view", "--cache", caches / cache, "--sample", "90,7,8", "--view", "2,0", "--out", tmp_path)
        )
        for one in said["views"]:
            expected = rendered(data, space, one["sample"], one["view"])
            np.testing.assert_array_equal(picture(one["teacher"]), expected)
            np.testing.assert_array_equal(picture(one["student"]), expected)


def test_teacher_and_student_see_the_same_piece_each_at_its_size(
    caches: Path, data: ImageSet, tmp_path: Path
) -> None:
    """The teacher's size is that of the cache, the student's is given, or the teacher's."""
    for cache, space, size, sizes in (
        ("larger.zarr", LATTICE, ("--size", "12"), (20, 12)),
        ("larger.zarr", LATTICE, (), (20, 20)),
        ("mixed.zarr", MIXED, ("--size", "16"), (10, 16)),
    ):
        argv = ("view", caches / cache, "--sample", "5", "--view", "1", "--out", tmp_path, *size)
        (one,) = succeed(*argv)["views"]
        for who, side in zip(("teacher", "student"), sizes, strict=True):
            assert one[who]["size"] == [side, side]
            expected = rendered(data, space, 5, 1, (side, side))
            np.testing.assert_array_equal(picture(one[who]), expected)


def test_a_padded_crop_begins_where_it_lies_on_the_picture(
    caches: Path, data: ImageSet, tmp_path: Path
) -> None:
    every = ",".join(map(str, range(12)))
    said = succeed(
        "view", caches / "lattice.zarr", "--sample", every, "--view", "0", "--out", tmp_path, "--quiet"
    )
    padded = np.pad(data.images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    for one in said["views"]:
        params = one["params"]
        top, left, *size = params["crop"]
        crop = padded[one["sample"], top + 1 : top + 11, left + 1 : left + 11]
        np.testing.assert_array_equal(picture(one["teacher"]), crop[:, ::-1] if params["flip"] else crop)
        assert size == [10, 10]
        assert (params["ops"], params["erase"], params["partner"]) == ([], None, None)
        assert (params["lam"], params["cutmix"], params["partner_params"]) == (1.0, None, None)
    assert min(one["params"]["crop"][0] for one in said["views"]) == -1


def test_params_are_the_record_in_plain_units(caches: Path, data: ImageSet, tmp_path: Path) -> None:
    every = ",".join(map(str, range(40)))
    said = succeed("view", caches / "mixed.zarr", "--sample", every, "--view", "3", "--out", tmp_path)
    units = {"rotate": 2, "color": 256, "contrast": 256, "brightness": 256, "sharpness": 256}
    units |= dict.fromkeys(("shear-x", "shear-y", "translate-x", "translate-y"), WHOLE)
    own = 5 + 2 * 2 + 5

    def check(params: dict[str, Any], row: list[int]) -> None:
        assert params["crop"] == row[:4]
        assert params["flip"] is bool(row[4])
        ops = [(OPERATIONS[row[i]], row[i + 1]) for i in (5, 7) if row[i]]
        assert [(name, (size or 0) * units.get(name, 1)) for name, size in params["ops"]] == ops
        erased, color = row[9:13], row[13]
        assert (params["erase"] is None) == (erased[2] == 0)
        if params["erase"]:
            assert [part * WHOLE for part in params["erase"]["box"]] == erased
            red, green, blue = params["erase"]["color"]
            assert red + 256 * green + 65536 * blue == color

    kinds = set()
    for one in said["views"]:
        row, params = record(data, MIXED, one["sample"], 3), one["params"]
        check(params, row[:own])
        check(params["partner_params"], row[own + 6 :])
        assert params["partner"] == row[own + 5]
        share, cut = row[own], row[own + 1 : own + 5]
        kinds |= {"cutmix" if cut[2] else "mixup", *(name for name in ("ops", "erase") if params[name])}
        if cut[2]:
            assert [part * WHOLE for part in params["cutmix"]] == cut
            assert params["lam"] == 1 - cut[2] * cut[3] / WHOLE**2
        else:
            assert (params["cutmix"], params["lam"]) == (None, share / LAMBDA)
    assert kinds == {"cutmix", "mixup", "ops", "erase"}


def test_the_share_is_that_of_a_students_labels(caches: Path, data: ImageSet, tmp_path: Path) -> None:
    loader = open_loader(caches / "mixed.zarr", batch_size=96)
    (batch,) = loader.epoch(3)  # shows view index 3
    assert isinstance(batch.labels, MixedLabels)
    every = ",".join(map(str, batch.samples.tolist()))
    said = succeed("view", caches / "mixed.zarr", "--sample", every, "--view", "3", "--out", tmp_path)
    params = [one["params"] for one in said["views"]]
    np.testing.assert_array_equal(
        np.array([one["lam"] for one in params], np.float32), batch.labels.lam.numpy()
    )
    partners = data.labels[[one["partner"] for one in params]]
    np.testing.assert_array_equal(partners, batch.labels.partner.numpy())


def test_operations_without_a_magnitude_have_none(caches: Path, tmp_path: Path) -> None:
    every = ",".join(map(str, range(40)))
    said = succeed("view", caches / "mixed.zarr", "--sample", every, "--view", "3", "--out", tmp_path)
    sizes = {name: size for one in said["views"] for name, size in one["params"]["ops"]}
    assert {name for name, size in sizes.items() if size is None} <= {"autocontrast", "equalize", "invert"}
    assert {abs(sizes[name]) for name in ("rotate",) if name in sizes} == {27.0}  # 0.9 of 30 degrees


def test_a_view_of_photographs_names_its_file(teacher_path: Path, tmp_path: Path) -> None:
    spec = photographs(tmp_path / "photographs")
    images, space = spec.open("train"), ViewSpace.parse("rrc-flip", seed=5)
    dump_tiny(teacher_path, spec, images, tmp_path / "a.zarr", space=space, size=(10, 10), num_views=10)
    said = succeed("view", tmp_path / "a.zarr", "--sample", "0,5", "--view", "9", "--out", tmp_path / "x")
    assert images.paths is not None
    for one in said["views"]:
        assert one["path"] == images.paths[one["sample"]]
        assert np.asarray(Image.open(one["path"])).shape == images.images[one["sample"]].shape
        top, left, height, width = one["params"]["crop"]
        assert 0 <= top <= top + height <= images.images[one["sample"]].shape[0]
        assert 0 <= left <= left + width <= images.images[one["sample"]].shape[1]
        expected = rendered(images, space, one["sample"], 9, (10, 10))
        np.testing.assert_array_equal(picture(one["teacher"]), expected)


def test_a_cache_need_not_be_complete(
    teacher_path: Path, spec: DataSpec, data: ImageSet, caches: Path, tmp_path: Path
) -> None:
    teacher, whole = load_teacher(str(teacher_path), device=torch.device("cpu")), tmp_path / "a.zarr"
    from contracts.tiny import settings

    with pytest.raises(StoppedError):
        dump(teacher, data, spec, whole, settings(teacher), device=torch.device("cpu"), interrupt=After(1))
    argv = ("--sample", "1", "--view", "3", "--out")
    (one,) = succeed("view", whole, *argv, tmp_path / "x")["views"]
    (other,) = succeed("view", caches / "lattice.zarr", *argv, tmp_path / "y")["views"]
    assert one["params"] == other["params"]


def test_a_person_reads_lines(caches: Path, tmp_path: Path) -> None:
    argv = ("view", caches / "mixed.zarr", "--sample", "7", "--view", "3", "--out", tmp_path, "--size", "16")
    (one,) = succeed(*argv)["views"]
    first, second, teacher, student = call(*argv).out.splitlines()
    assert first == f"sample 7, view 3: {one['label']}"
    top, left, height, width = one["params"]["crop"]
    assert second.startswith(f"  crop {top},{left} {height}x{width}")
    assert second.endswith(f" {1 - one['params']['lam']:.0%} of {one['params']['partner']}")
    assert teacher == f"  teacher 10x10: {one['teacher']['file']}"
    assert student == f"  student 16x16: {one['student']['file']}"


@pytest.mark.parametrize(
    ("sample", "view", "said", "hint"),
    [
        ("96", "0", ("sample 96", "96 samples"), "--sample 0 to 95"),
        ("0,-1", "0", ("sample -1",), "--sample 0 to 95"),
        ("0", "1,4", ("view 4", "4 views"), "--view 0 to 3"),
        ("7,,9", "0", ("'7,,9'",), "--sample 0,1,2"),
        ("7", "a", ("'a'",), "--view 0,1,2"),
    ],
)
def test_a_pair_that_is_not_there_is_refused(
    caches: Path, tmp_path: Path, sample: str, view: str, said: tuple[str, ...], hint: str
) -> None:
    argv = ("view", caches / "lattice.zarr", "--sample", sample, "--view", view, "--out", tmp_path / "x")
    refuse(2, said, *argv, hint=hint, keep=tmp_path)


def test_what_cannot_be_shown_is_refused(caches: Path, tmp_path: Path, npz: Path) -> None:
    pair = ("--sample", "0", "--view", "0", "--out")
    cache = caches / "lattice.zarr"
    refuse(3, "none.zarr", "view", tmp_path / "none.zarr", *pair, tmp_path / "x")
    (tmp_path / "file").write_text("")
    refuse(2, "is a file", "view", cache, *pair, tmp_path / "file", hint="--out")
    refuse(1, "none.npz", "view", cache, *pair, tmp_path / "x", "--data", f"npz:{tmp_path}/none.npz")
    with np.load(npz) as arrays:
        np.savez(tmp_path / "other.npz", **{**arrays, "train_images": 255 - arrays["train_images"]})
    refuse(4, "data set", "view", cache, *pair, tmp_path / "x", "--data", f"npz:{tmp_path}/other.npz")
    assert not (tmp_path / "x").exists()


def test_pixels_that_are_rendered_otherwise_than_at_the_dump_are_refused(
    caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bancache.dumping.recompute.golden_of", lambda *given: "f" * 64)
    golden = open_cache(caches / "lattice.zarr").manifest.pixels["golden"]
    argv = ("--sample", "0", "--view", "0", "--out", tmp_path / "x")
    refuse(4, (golden[:8], "f" * 8), "view", caches / "lattice.zarr", *argv, keep=tmp_path)
