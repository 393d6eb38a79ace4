"""What remains of an epoch after its last full batch: left out and said so, or one smaller batch more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from contracts.calling import refuse, succeed
from contracts.loader import require_equal, require_shares
from contracts.replaying import pretend_to_capture
from contracts.stopping import StopAfter
from contracts.tiny import CPU, RECIPE, architecture, dump_tiny, images
from sources.tiny import Heard

from bancache import open_loader
from bancache.errors import StoppedError, UsageError
from bancache.models.checkpoint import load_checkpoint
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training import Run, TrainerOptions, run_for_labels, train

KEEP = replace(RECIPE, epochs=2, batch_size=40, keep_last=True, ema=0.9)


def run_of(spec: DataSpec, data: ImageSet) -> Run:
    return run_for_labels(architecture(), KEEP, 0, spec, data, "crop1-flip")


@pytest.fixture(scope="module")
def cache_path(
    tmp_path_factory: pytest.TempPathFactory, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> Path:
    path = tmp_path_factory.mktemp("cache") / "gen0.zarr"
    dump_tiny(teacher_path, spec, data, path, num_views=2)
    return path


def test_every_sample_is_shown_once_an_epoch_and_any_step_can_be_the_first(cache_path: Path) -> None:
    kept = open_loader(cache_path, batch_size=40, keep_last=True)
    dropped = open_loader(cache_path, batch_size=40)
    for epoch in range(2):
        batches = list(kept.epoch(epoch))
        assert [len(batch.samples) for batch in batches] == [40, 40, 16]
        assert sorted(np.concatenate([batch.samples for batch in batches])) == list(range(96))
        (last,) = kept.epoch(epoch, start=2)
        require_equal(last, batches[2])
        for batch, same in zip(batches[:2], dropped.epoch(epoch), strict=True):
            require_equal(batch, same)
    assert (len(kept), kept.samples, len(dropped), dropped.samples) == (3, 96, 2, 80)


def test_processes_share_the_smaller_batch_evenly_or_say_why_not(cache_path: Path) -> None:
    whole = open_loader(cache_path, batch_size=40, keep_last=True)
    shares = [
        open_loader(cache_path, batch_size=40, keep_last=True, rank=rank, world_size=4) for rank in range(4)
    ]
    require_shares(whole, shares, epoch=0)
    for size, ranks, last in ((90, 5, 6), (95, 1, 1), (92, 4, 4)):
        with pytest.raises(UsageError, match=f"batch .*{last}") as caught:
            open_loader(cache_path, batch_size=size, keep_last=True, world_size=ranks)
        assert "--keep-last" in caught.value.hint


def test_a_run_that_stops_after_every_step_ends_with_the_same_bits(
    tmp_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet
) -> None:
    run, heard = run_of(spec, data), Heard()
    whole = train(run, data, held_out, TrainerOptions(tmp_path / "a.pt", CPU), progress=heard).checkpoint
    options = TrainerOptions(tmp_path / "b.pt", CPU)
    for _ in range(2 * 3):
        with pytest.raises(StoppedError):
            train(run, data, held_out, options, interrupt=StopAfter(0))
    ended = train(run, data, held_out, options).checkpoint
    assert (ended.fingerprint, ended.header["history"]) == (whole.fingerprint, whole.header["history"])
    assert all(96 * epoch["train_accuracy"] % 1 < 1e-9 for epoch in ended.header["history"])
    assert not [note for note in heard.notes if "leaves out" in note]


@pytest.mark.parametrize("keep_last", [False, True])
def test_a_batch_that_is_larger_than_the_data_set_is_said_with_both_numbers(
    tmp_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet, keep_last: bool
) -> None:
    run = run_of(spec, data)
    for size, said in ((len(data), 0), (1200, 1)):
        heard, recipe = Heard(), replace(KEEP, batch_size=size, keep_last=keep_last, epochs=1)
        train(
            replace(run, recipe=recipe),
            data,
            held_out,
            TrainerOptions(tmp_path / f"{size}.pt", CPU),
            progress=heard,
        )
        assert (
            len([note for note in heard.notes if "1,200" in note and f"{len(data)} images" in note]) == said
        )


def test_a_graph_has_batches_of_one_size(
    tmp_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays = pretend_to_capture(monkeypatch)
    train(run_of(spec, data), data, held_out, TrainerOptions(tmp_path / "a.pt", CPU))
    assert replays == []
    even = replace(run_of(spec, data), recipe=replace(KEEP, batch_size=48))
    train(even, data, held_out, TrainerOptions(tmp_path / "b.pt", CPU))
    assert replays == [4]


def test_the_option_is_in_the_recipe_only_if_it_is_used_and_students_follow(
    npz: Path, tmp_path: Path
) -> None:
    short = ("--epochs", "1", "--views", "crop1-flip", "--model", "convnet-2")
    asked = ("train-teacher", "--data", f"npz:{npz}", *short, "--batch-size", "40", "--out")
    plain = succeed(*asked, tmp_path / "plain.pt", "--drop-last")
    kept = succeed(*asked, tmp_path / "gen0.pt", "--keep-last")
    assert "keep_last" not in load_checkpoint(tmp_path / "plain.pt").header["recipe"]
    assert load_checkpoint(tmp_path / "gen0.pt").header["recipe"]["keep_last"] is True
    (note,) = [each for each in plain["notes"] if "leaves out" in each]
    assert "16 of 96" in note
    assert "--keep-last" in note
    assert kept["weights"] != plain["weights"]
    assert refuse(4, "keep last", *asked, tmp_path / "gen0.pt", "--drop-last", hint="--overwrite")
    succeed("dump", "--teacher", tmp_path / "gen0.pt")
    succeed("train-student", "--cache", tmp_path / "gen0.zarr")
    assert load_checkpoint(tmp_path / "gen1.pt").header["recipe"]["keep_last"] is True
    record = json.loads((tmp_path / "gen1.pt.jsonl").read_text().splitlines()[0])
    assert 96 * record["train_accuracy"] % 1 < 1e-9


@pytest.mark.parametrize(("option", "size"), [("--keep-last", 128), ("--drop-last", 80)])
def test_a_batch_that_nobody_chose_is_made_smaller_only_to_leave_out_less(
    tmp_path: Path, option: str, size: int
) -> None:
    many = images(seed=0, count=160)
    pixels, labels = many.images, many.labels
    np.savez(
        tmp_path / "d.npz", train_images=pixels, train_labels=labels, test_images=pixels, test_labels=labels
    )
    asked = ("train-teacher", "--data", f"npz:{tmp_path / 'd.npz'}", "--epochs", "1", "--model", "convnet-2")
    succeed(*asked, "--out", tmp_path / "a.pt", option)
    assert load_checkpoint(tmp_path / "a.pt").header["recipe"]["batch_size"] == size
