"""Packs from the command line: what they are for, and what is said of a damaged one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from contracts.calling import call, refuse, succeed
from contracts.photographs import write_photographs
from sources.tiny import encode, make_npz, random_images

from bancache.models.checkpoint import load_checkpoint
from bancache.sources import open_source
from bancache.sources.pack import open_file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/, and the packs e.pack of its files and p.pack of its pixels at 24."""
    root = tmp_path_factory.mktemp("packs")
    write_photographs(root / "photos", train=9, test=6)
    succeed("pack", f"folder:{root / 'photos'}", "--out", root / "e.pack")
    succeed("pack", f"folder:{root / 'photos'}", "--out", root / "p.pack", "--size", "24")
    return root


@pytest.fixture(params=["e.pack", "p.pack"])
def copy(made: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of a pack that a test may damage."""
    return Path(shutil.copy(made / request.param, tmp_path))


def damage(pack: Path, *samples: int) -> None:
    """Flip a bit of some training pictures."""
    offsets = open_file(pack).index("train").offsets
    content = bytearray(pack.read_bytes())
    for sample in samples:
        content[int(offsets[sample + 1]) - 1] ^= 1
    pack.write_bytes(content)


def test_a_cache_made_from_a_folder_trains_a_student_from_its_pack(made: Path, tmp_path: Path) -> None:
    folder, pack = f"folder:{made / 'photos'}", f"pack:{made / 'e.pack'}"
    gen0, cache = tmp_path / "gen0.pt", tmp_path / "gen0.zarr"
    small = ("--model", "convnet-2", "--epochs", "1", "--views", "rrc-flip", "--size", "16")
    succeed("train-teacher", "--data", folder, *small, "--out", gen0)
    succeed("dump", "--teacher", gen0, "--num-views", "2", "--out", cache)
    succeed("dump", "--teacher", gen0, "--data", pack, "--num-views", "2", "--out", tmp_path / "packed.zarr")
    succeed("train-student", "--cache", cache, "--data", pack, "--epochs", "1", "--out", tmp_path / "gen1.pt")
    ours, theirs = (sorted((tmp_path / name / "q").rglob("*")) for name in ("packed.zarr", "gen0.zarr"))
    assert [f.read_bytes() for f in ours if f.is_file()] == [f.read_bytes() for f in theirs if f.is_file()]


@pytest.mark.parametrize("kind", ["e.pack", "p.pack"])
def test_a_pack_larger_than_memory_gives_the_same_teacher_cache_and_student(
    made: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {}
    for place in ("memory", "stored"):
        folder = tmp_path / place
        gen0, cache, gen1 = folder / "gen0.pt", folder / "gen0.zarr", folder / "gen1.pt"
        if place == "stored":
            monkeypatch.setattr("bancache.sources.pack.free_on_host", lambda: 0)
        small = ("--model", "convnet-2", "--epochs", "1", "--views", "rrc-flip", "--size", "16")
        said = succeed("train-teacher", "--data", f"pack:{made / kind}", *small, "--out", gen0)
        assert any("read picture by picture" in note for note in said["notes"]) == (place == "stored")
        succeed("dump", "--teacher", gen0, "--num-views", "2", "--out", cache)
        succeed("train-student", "--cache", cache, "--epochs", "1", "--out", gen1)
        states = [load_checkpoint(path).state for path in (gen0, gen1)]
        codes = [f.read_bytes() for f in sorted((cache / "q").rglob("*")) if f.is_file()]
        weights[place] = [{k: v.numpy().tobytes() for k, v in state.items()} for state in states], codes
    assert weights["memory"] == weights["stored"]


def test_info_says_what_a_pack_holds(made: Path) -> None:
    about = succeed("info", made / "p.pack")
    assert (about["kind"], about["size"], about["square"], about["classes"]) == ("pixels", 24, False, 3)
    assert (about["train"]["samples"], about["test"]["samples"]) == (9, 6)
    assert about["train"]["fingerprint"] == open_source(f"pack:{made / 'p.pack'}", "train").fingerprint
    assert about["bytes"] == (made / "p.pack").stat().st_size
    assert "24 pixels" in call("info", made / "p.pack").out


def test_the_pixels_are_those_of_views_resampler(made: Path) -> None:
    import numpy as np

    from bancache.views.shrink import shrink

    there = open_source(f"folder:{made / 'photos'}", "train").images
    for here, picture in zip(open_source(f"pack:{made / 'p.pack'}", "train").images, there, strict=True):
        assert min(here.shape[:2]) == 24
        assert np.array_equal(here, shrink(picture, (0, 0, *picture.shape[:2]), here.shape[:2]))


def test_the_same_command_finds_its_pack_complete(made: Path) -> None:
    assert succeed("pack", f"folder:{made / 'photos'}", "--out", made / "e.pack")["made"] is False
    refuse(
        2,
        "kind encoded",
        "pack",
        f"folder:{made / 'photos'}",
        "--kind",
        "pixels",
        "--out",
        made / "e.pack",
        hint="--overwrite",
    )


@pytest.mark.parametrize("deep", [(), ("--deep",)])
def test_an_intact_pack_is_found_intact(copy: Path, deep: tuple[str, ...]) -> None:
    assert succeed("verify", copy, *deep)["intact"] is True


def test_all_damaged_pictures_are_named_and_mended(made: Path, copy: Path) -> None:
    whole = copy.read_bytes()
    damage(copy, 2, 7)
    outcome = call("verify", copy, "--json")
    assert outcome.code == 1
    assert [(f["split"], f["sample"]) for f in outcome.json["findings"]] == [("train", 2), ("train", 7)]
    assert "train/checks/06.png" in outcome.json["findings"][0]["problem"]
    refuse(
        1,
        ("sample 2", "checks/06.png"),
        "train-teacher",
        "--data",
        f"pack:{copy}",
        "--model",
        "convnet-2",
        hint="repair",
    )
    assert succeed("repair", copy)["pictures"] == 2
    assert copy.read_bytes() == whole
    assert succeed("repair", copy, "--data", f"folder:{made / 'photos'}")["pictures"] == 0


def test_a_changed_picture_of_the_source_is_not_put_into_a_pack(
    made: Path, copy: Path, tmp_path: Path
) -> None:
    photos = Path(shutil.copytree(made / "photos", tmp_path / "changed"))
    (photos / "train/checks/06.png").write_bytes(encode(random_images(1, height=30, width=30)[0]))
    (photos / "train/checks/03.png").unlink()
    damage(copy, 0, 1, 2)
    refuse(
        4,
        ("sample 1", "checks/03.png", "1 more"),
        "repair",
        copy,
        "--data",
        f"folder:{photos}",
        hint="--data",
    )
    assert [f["sample"] for f in call("verify", copy, "--json").json["findings"]] == [1, 2]


def test_a_swapped_picture_is_damage(copy: Path) -> None:
    offsets = open_file(copy).index("train").offsets.tolist()
    content = bytearray(copy.read_bytes())
    first, second = (content[offsets[i] : offsets[i + 1]] for i in (0, 1))
    content[offsets[0] : offsets[2]] = second + first
    copy.write_bytes(content)
    findings = call("verify", copy, "--json").json["findings"]
    assert [f["sample"] for f in findings] == [0, 1]


@pytest.mark.parametrize("what", ["magic", "header", "index", "cut", "empty", "longer"])
def test_a_pack_whose_own_parts_are_damaged_is_refused(copy: Path, what: str) -> None:
    content = bytearray(copy.read_bytes())
    column = open_file(copy).header.splits.train.columns["heights"].at
    if what == "cut":
        del content[-100:]
    elif what == "longer":
        content += b"more"
    elif what == "empty":
        content.clear()
    else:
        content[{"magic": 3, "header": len(content) - 40, "index": column}[what]] ^= 1
    copy.write_bytes(content)
    for command in (["verify"], ["repair"], ["info"] if what != "index" else []):
        if command:
            refuse(1, str(copy.name), *command, copy)
    refuse(1, str(copy.name), "train-teacher", "--data", f"pack:{copy}", "--model", "convnet-2")


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--kind", "encoded", "--size", "8"), "--size"),
        (("--square",), "--size 224"),
        (("--kind", "encoded"), "--kind pixels"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: tuple[str, ...], hint: str) -> None:
    data = f"npz:{make_npz(tmp_path / 'd.npz')}"
    refuse(2, "", "pack", data, "--out", tmp_path / "d.pack", *options, hint=hint)
    assert not (tmp_path / "d.pack").exists()


def test_pictures_that_cannot_be_opened_are_named_or_left_out(made: Path, tmp_path: Path) -> None:
    photos, kind = Path(shutil.copytree(made / "photos", tmp_path / "photos")), ("--kind", "encoded")
    for name in ("yy.png", "zz.png"):
        (photos / "train/checks" / name).symlink_to(tmp_path / "gone.png")
    pack = ("pack", f"folder:{photos}", "--out", tmp_path / "d.pack", *kind)
    refuse(1, ("2 of 17", "yy.png", "zz.png"), *pack, hint="--skip-bad")
    assert succeed(*pack, "--skip-bad")["left_out"] == 2
    again = succeed(*pack, "--skip-bad")
    assert (again["made"], again["left_out"]) == (False, None)


def test_a_pack_that_is_missing_or_something_else_is_named(made: Path, tmp_path: Path) -> None:
    teach = ("train-teacher", "--model", "convnet-2", "--data")
    refuse(1, "does not exist", *teach, f"pack:{made / 'e.pac'}", hint=f"pack:{made / 'e.pack'}")
    refuse(1, "is not a pack", *teach, f"pack:{make_npz(tmp_path / 'd.npz')}", hint="bancache pack")
    refuse(2, "unknown data source", *teach, str(made / "e.pack"), hint=f"pack:{made / 'e.pack'}")
    refuse(2, "no teacher made it", "verify", made / "e.pack", "--teacher", "x.pt", hint="--teacher")
