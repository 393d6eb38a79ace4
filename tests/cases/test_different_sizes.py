"""Pictures that differ in size are read as they are; what needs one size says so, with the sizes and what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.calling import call, refuse, succeed
from sources.tiny import encode, make_folder, random_images

from bancache.errors import DataError, UsageError
from bancache.models.checkpoint import load_checkpoint
from bancache.sources import open_source
from bancache.sources.image_set import ImageSet
from bancache.system.configs import read_toml
from bancache.system.ragged import RaggedImages
from bancache.training.defaults import default_side
from bancache.training.preflight import require_matching_splits
from bancache.views import ViewSpace
from bancache.views.factory import choose_renderer, resident_bytes
from bancache.views.model_input import Normalization

NORMAL = Normalization((0.0,) * 3, (1.0,) * 3)
TEACH = ("train-teacher", "--model", "convnet-2", "--epochs", "1", "--batch-size", "2")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Training pictures of 5 x 5 pixels and one of 9 x 7; test pictures of 5 x 5."""
    monkeypatch.chdir(tmp_path)
    root = make_folder(tmp_path / "photos")
    (root / "train" / "dog" / "9.png").write_bytes(encode(random_images(1, height=7, width=9)[0]))
    return root


def opened(root: Path, split: str = "train") -> ImageSet:
    return open_source(f"folder:{root}", split)


def test_crops_and_flips_of_them_are_refused_with_both_sizes_before_anything_is_written(photos: Path) -> None:
    data = ("--data", f"folder:{photos}", "--views", "crop1-flip")
    refuse(2, ("5x5", "9x7"), *TEACH, *data, hint="--image-size")
    assert not Path("gen0.pt").exists()
    said = succeed(*TEACH, *data, "--image-size", "8")
    assert said["epochs"] == 1


def test_test_pictures_that_differ_are_refused_too(photos: Path) -> None:
    (photos / "train" / "dog" / "9.png").rename(photos / "test" / "dog" / "9.png")
    refuse(2, ("5x5", "9x7"), *TEACH, "--data", f"folder:{photos}", "--views", "flip", hint="--image-size")
    assert not Path("gen0.pt").exists()


def test_a_run_says_that_the_sizes_differ(photos: Path) -> None:
    err = call(*TEACH, "--data", f"folder:{photos}", "--views", "flip").err
    (note,) = [
        line for line in err.splitlines() if line.startswith("note: ") and "each keeps its own" in line
    ]
    assert "from 5x5 to 9x7" in note


def test_they_are_seen_as_large_as_most_of_them_are() -> None:
    """Enlarged pictures take the time of large ones and show no more."""

    def seen(*sides: int, width: int = 400) -> int:
        shown = [np.zeros((side, width, 3), np.uint8) for side in sides]
        flat = np.concatenate([picture.reshape(-1) for picture in shown])
        heights, widths = np.array([picture.shape[:2] for picture in shown], np.int32).T
        return default_side(RaggedImages(flat, heights, widths, 3))

    assert [seen(64, 65, 200), seen(84, 90, 91), seen(5, 9), seen(300, 290), seen(70, 71, width=40)] == [
        *(64, 96, 32, 224, 32),
    ]


def test_a_run_that_began_at_another_size_keeps_it_and_a_fine_tuning_has_224(photos: Path) -> None:
    """An older version saw all pictures that differ in size at 224 pixels."""
    data = ("--data", f"folder:{photos}")

    def size(out: str, *options: str) -> list[int]:
        succeed(*TEACH, *data, "--out", out, *options)
        found: list[int] = load_checkpoint(out).header["architecture"]["image_size"]
        return found

    said = succeed(*TEACH, *data)
    assert any("32 x 32" in note and "--size" in note for note in said["notes"])
    assert size("gen0.pt") == [32, 32]
    assert size("old.pt", "--size", "48") == [48, 48]
    assert not succeed(*TEACH, *data, "--out", "old.pt")["trained"]
    assert size("tuned.pt", "--weights", "gen0.pt") == [224, 224]
    run = ("generations", "--generations", "1", "--num-views", "2", *TEACH[1:], *data, "--out")
    succeed(*run, "old", "--size", "48")
    before = Path("old/run.toml").read_bytes()
    succeed(*run, "old")
    assert Path("old/run.toml").read_bytes() == before
    succeed(*run, "new")
    assert read_toml(Path("new/run.toml"))["model"]["image_size"] == [32, 32]


def test_a_study_sees_them_so_too(photos: Path) -> None:
    text = f'[study]\nseeds = [0]\n[data]\nsource = "folder:{photos}"\n[model]\nname = "convnet-2"\n'
    text += "[recipe]\nepochs = 1\nbatch_size = 2\n[arms.labels]\n"
    Path("arms.toml").write_text(text)
    notes = succeed("study", "arms.toml", "--out", "run")["notes"]
    assert any("32 x 32" in note and "model.image_size" in note for note in notes)
    Path("old.toml").write_text(text.replace('convnet-2"', 'convnet-2"\nimage_size = [48, 48]'))
    succeed("study", "old.toml", "--out", "old")
    before = Path("old/arms.toml").read_bytes()
    succeed("study", "arms.toml", "--out", "old")
    assert Path("old/arms.toml").read_bytes() == before


@pytest.mark.parametrize("name", ["identity", "flip", "crop4-zero"])
def test_each_renderer_names_the_views_that_need_one_size(photos: Path, name: str) -> None:
    images, space = opened(photos).images, ViewSpace.parse(name)
    for act in (
        lambda: choose_renderer(images[:5], space, NORMAL),  # even where the first ones are of one size
        lambda: choose_renderer(images, space, NORMAL, device="cpu"),
        lambda: resident_bytes(images, space, torch.device("cpu")),
    ):
        with pytest.raises(UsageError, match=f"'{name}'.* 5x5 to") as caught:
            act()
        assert "--image-size" in caught.value.hint


def test_splits_match_if_one_of_them_has_one_size_by_chance_and_channels_are_equal(photos: Path) -> None:
    train, test = opened(photos), opened(photos, "test")
    assert (train.uniform, test.uniform) == (False, True)
    require_matching_splits(train, test, ViewSpace.parse("rrc-flip"))
    gray = ImageSet(test.images[..., :1], test.labels, test.classes, "gray", "test")
    with pytest.raises(DataError, match=r"\(3,\).*\(1,\)"):
        require_matching_splits(train, gray, ViewSpace.parse("rrc-flip"))


def test_a_dump_by_a_model_of_a_library_is_refused_before_the_model_is_built(photos: Path) -> None:
    Path("w.pth").write_bytes(b"")
    dump = ("dump", "--teacher", "torchvision:resnet18", "--weights", "w.pth", "--num-views", "1")
    refuse(2, ("5x5", "9x7"), *dump, "--data", f"folder:{photos}", "--views", "flip", hint="--image-size")
