"""What the program decides for its user is said on stderr and in the JSON."""

from __future__ import annotations

from pathlib import Path

import pytest
from contracts.calling import call, succeed
from contracts.tiny import images
from PIL import Image
from sources.tiny import Heard, Pixels, make_folder, random_images

from bancache.system.stored import sketch
from bancache.training import preflight
from bancache_cli import console


def test_a_note_is_a_line_on_stderr_and_a_string_in_the_json(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "animals")
    (folder / "train" / "dog" / "notes.txt").write_text("not an image")
    done = call(
        *("train-teacher", "--data", f"folder:{folder}", "--image-size", "8", "--model", "resnet-8"),
        *("--epochs", "1", "--batch-size", "2", "--out", tmp_path / "gen0.pt", "--json"),
    )
    assert done.code == 0, done.err
    (note,) = [note for note in done.json["notes"] if "left out" in note]
    assert f"note: {note}" in done.err.splitlines()
    assert done.json["warnings"] == []


@pytest.mark.parametrize("place", ["memory", "streamed", "training images streamed", "packed"])
def test_images_in_both_splits_are_warned_of_and_those_in_two_classes_are_noted(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "_REPEATED", {})  # the other places have the same fingerprints
    folder = make_folder(tmp_path / "animals")
    picture = Image.fromarray(random_images(1, height=90, width=97)[0])
    for split, name in (("train", "cat"), ("train", "dog"), ("test", "dog")):
        picture.save(folder / split / name / "same.png")
    data, free = f"folder:{folder}", iter([0, 0])  # asked once for each split, and once for the note
    if place == "packed":
        succeed("pack", data, "--out", tmp_path / "animals.pack")
        data = f"pack:{tmp_path / 'animals.pack'}"
    if place != "memory":
        module = "pack" if place == "packed" else "decoded"
        monkeypatch.setattr(
            f"bancache.sources.{module}.free_on_host",
            lambda: next(free, 0 if place != "training images streamed" else 1 << 30),
        )
    done = call(
        *("train-teacher", "--data", data, "--size", "8", "--model", "convnet-2"),
        *("--epochs", "1", "--batch-size", "2", "--out", tmp_path / "gen0.pt", "--json"),
    )
    assert done.code == 0, done.err
    streamed = [
        note for note in done.json["notes"] if "decoded whenever" in note or "picture by picture" in note
    ]
    assert len(streamed) == {"memory": 0, "training images streamed": 1}.get(place, 2)
    assert any("1 of 4 test images" in warning for warning in done.json["warnings"])
    assert any(note.startswith("1 training image ") for note in done.json["notes"]) == (place != "packed")


def test_the_models_of_a_study_look_for_such_images_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Pixels] = []

    def look(image: Pixels) -> int:
        looked.append(image)
        return sketch(image)

    monkeypatch.setattr(preflight, "sketch", look)
    for _ in range(2):
        told, test = Heard(), images(seed=71, count=20)
        preflight.say_repeated_images(images(seed=71, count=20), test, told)
        assert len(told.warnings) == 1
        preflight.say_repeated_images(images(seed=72, count=20), test, told)
        assert (len(told.warnings), len(looked)) == (1, 80)


def test_a_note_is_said_once_and_quiet_leaves_the_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    said = console.Said()
    loud, quiet = console.Reporter(said), console.Reporter(said, quiet=True)
    for reporter in (loud, loud, quiet):
        reporter.note("two images were left out")
    quiet.note("one more")
    quiet.warn("the teacher is near chance")
    assert capsys.readouterr().err.splitlines() == [
        "note: two images were left out",
        "warning: the teacher is near chance",
    ]
    assert said.notes == ["two images were left out", "one more"]
    assert said.warnings == ["the teacher is near chance"]
