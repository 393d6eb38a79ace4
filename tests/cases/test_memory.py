"""Memory is counted before it is taken: defaults fit it, and what was asked for and cannot fit is refused with numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.calling import call, refuse, succeed
from contracts.tiny import RECIPE, architecture, images

from bancache.cache.reader import open_cache
from bancache.errors import OutOfMemoryError
from bancache.evaluation.predict import images_at_once
from bancache.models.checkpoint import load_checkpoint
from bancache.report.results import read_records
from bancache.sources.image_set import ImageSet
from bancache.system import capturing
from bancache.system.batch_memory import Needs
from bancache.system.progress import Silent
from bancache.training import memory
from bancache.views import ViewSpace

TEACH = ("train-teacher", "--model", "convnet-4", "--epochs", "1")
Limit = Callable[[int], None]


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Limit:
    """Let the machine have so many free bytes."""
    monkeypatch.chdir(tmp_path)

    def have(free: int) -> None:
        monkeypatch.setattr("bancache.system.memory.free_on_host", lambda: free)

    return have


def recipe(out: str = "gen0.pt") -> tuple[int, float]:
    found = load_checkpoint(out).header["recipe"]
    return found["batch_size"], found["lr"]


def test_a_default_batch_is_halved_until_it_fits_with_its_learning_rate_and_kept_by_the_run(
    limit: Limit, npz: Path
) -> None:
    limit(1_500_000)
    said = succeed(*TEACH, "--data", f"npz:{npz}")
    assert recipe() == (24, 0.2 * 24 / 128)
    assert any("batch size 24" in note and "--batch-size" in note for note in said["notes"])
    limit(10**12)
    assert succeed(*TEACH, "--data", f"npz:{npz}")["trained"] is False


def test_a_learning_rate_that_was_given_stays(limit: Limit, npz: Path) -> None:
    limit(1_500_000)
    succeed(*TEACH, "--data", f"npz:{npz}", "--lr", "0.1")
    assert recipe() == (24, 0.1)


def test_with_enough_memory_nothing_changes(limit: Limit, npz: Path) -> None:
    said = succeed(*TEACH, "--data", f"npz:{npz}")
    assert recipe() == (128, 0.2)
    (note,) = said["notes"]  # of the images, not of the memory
    assert "128" in note
    assert "96 images" in note


def test_a_batch_that_was_asked_for_and_does_not_fit_is_refused_with_numbers(limit: Limit, npz: Path) -> None:
    limit(1_500_000)
    data = ("--data", f"npz:{npz}")
    hint = refuse(
        1, ("--batch-size 96", "0.00 GB"), *TEACH, *data, "--batch-size", "96", "-q", hint="--batch-size "
    )
    assert all(option in hint for option in ("--image-size", "--model", "--checkpoint-activations"))
    assert not Path("gen0.pt").exists()
    limit(100_000)
    refuse(1, ("--batch-size 3", "0.00 GB"), *TEACH, *data, "-q", hint="--image-size")


def test_students_and_dumps_count_too(limit: Limit, npz: Path) -> None:
    succeed(*TEACH, "--data", f"npz:{npz}")
    limit(1_500_000)
    assert succeed("train-student", "--cache", dumped(batch_size=48))["trained"] is True
    assert recipe("gen1.pt")[0] == 24
    limit(800_000)
    refuse(
        1, ("--batch-size 96",), "dump", "--teacher", "gen0.pt", "--out", "b.zarr", "--batch-size", "96", "-q",
        hint="--batch-size",
    )  # fmt: skip
    assert not Path("b.zarr").exists()
    limit(10**12)
    assert dumped(batch_size=48) == "gen0.zarr"


def dumped(*, batch_size: int) -> str:
    """Make the cache gen0.zarr with the default batch, or go on with it."""
    said = succeed("dump", "--teacher", "gen0.pt", "--num-views", "2")
    assert open_cache(said["out"]).manifest.compute["batch_size"] == batch_size
    return str(said["out"])


def test_a_sequence_counts_too_and_goes_on_as_it_began(limit: Limit, npz: Path) -> None:
    argv = ("generations", "--data", f"npz:{npz}", "--model", "convnet-4", "--epochs", "1", "--out", "x")
    limit(1_500_000)
    succeed(*argv, "--generations", "1")
    limit(10**12)
    succeed(*argv, "--generations", "1")
    assert {
        line["recipe"]["batch_size"] for line in read_records(Path("x/results.jsonl")) if "recipe" in line
    } == {24}


def test_an_evaluation_takes_as_many_pixels_at_once_whatever_the_size_of_the_images() -> None:
    assert [images_at_once(side, side) for side in (8, 32, 64, 224, 4096)] == [500, 500, 125, 10, 1]


def test_a_captured_step_keeps_its_memory_beside_an_evaluation_of_as_many_images_as_suit_the_gpu(
    monkeypatch: pytest.MonkeyPatch, data: ImageSet, held_out: ImageSet
) -> None:
    monkeypatch.setattr(memory, "_measured", lambda *about: (Needs(100, 10), Needs(50, 2)))
    monkeypatch.setattr(memory, "resident_bytes", lambda *about: 0)
    cpu, views = torch.device("cpu"), ViewSpace.parse("crop1")

    def needed(batch: int) -> int:  # with the 40 images of the test split
        return memory.training_needs(architecture(), RECIPE, data, held_out, views, cpu).of(batch)

    def at_once(total: int) -> int:
        monkeypatch.setattr(memory, "total_bytes", lambda device: total)
        return memory.evaluated_at_once(architecture(), RECIPE, cpu)

    assert (needed(2), needed(10), at_once(10**12)) == (130, 200, 500)
    monkeypatch.setattr(capturing, "DEVICE_TYPES", ("cpu",))
    assert (needed(2), needed(10)) == (250, 330)
    assert [at_once(8 * part) for part in (4050, 4049, 1050, 1049)] == [2000, 500, 500, 125]


def test_what_an_epoch_leaves_out_is_said_with_its_number(limit: Limit, npz: Path) -> None:
    said = succeed(*TEACH, "--data", f"npz:{npz}", "--batch-size", "36")
    assert ["24 of 96" in note for note in said["notes"]] == [True]


def test_a_small_set_gets_a_default_batch_that_leaves_little_out(limit: Limit, tmp_path: Path) -> None:
    train, test = images(seed=0, count=160), images(seed=1, count=10)
    arrays: dict[str, Any] = {"train_images": train.images, "train_labels": train.labels}
    np.savez("d.npz", **arrays, test_images=test.images, test_labels=test.labels)
    said = succeed(*TEACH, "--data", "npz:d.npz")
    assert recipe() == (80, 0.2)
    assert ["32 of 160" in note for note in said["notes"]] == [True]
    # A recipe that was asked for by its name is kept.
    succeed(*TEACH, "--data", "npz:d.npz", "--recipe", "wrn", "--out", "wrn.pt")
    assert recipe("wrn.pt") == (128, 0.1)
    # So is a run that an older version began with the whole preset.
    assert call(*TEACH, "--data", "npz:d.npz", "--batch-size", "128", "--out", "old.pt").code == 0
    assert succeed(*TEACH, "--data", "npz:d.npz", "--out", "old.pt")["trained"] is False


def test_more_workers_than_fit_are_refused_before_the_first_starts(limit: Limit) -> None:
    pytest.importorskip("distributed")
    from bancache.cluster.engine import local_engine

    limit(2_000_000_000)
    with pytest.raises(OutOfMemoryError, match=r"9 workers need 2\.7 GB") as caught:
        local_engine(9, gpus=False, progress=Silent()).__enter__()
    assert "--workers" in caught.value.hint
