"""Pictures that are not in memory give the batches that they give from memory, and leave nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.loader import (
    require_equal,
    require_kept_batches_stay,
    require_same_batches,
    require_same_tail,
    require_shares,
)
from contracts.photographs import EVERYTHING, write_photographs
from contracts.stored import descriptors, reading_threads, stored
from contracts.tiny import CPU, RECIPE, architecture, images

from bancache.errors import DataError, StoppedError, UsageError
from bancache.loader import Batch, Loader, LoaderOptions
from bancache.loader.evaluation import EvaluationLoader
from bancache.loader.open import labels_loader
from bancache.sources import open_source
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.ranks import Rank
from bancache.system.signals import Interrupt
from bancache.training import TrainerOptions, run_for_labels, train
from bancache.views import ViewSpace
from bancache.views.factory import choose_renderer
from bancache.views.model_input import Normalization
from bancache.views.pictures import Pictures
from bancache.views.renderer import Integers
from bancache.views.streamed_renderer import StreamedRenderer

NORMAL = Normalization((120.0, 110.0, 100.0), (60.0, 61.0, 62.0))
LATTICES = ("identity", "crop1-flip", "crop2-zero-flip", "crop1-flip-rand-m9-n2-mixup0.8")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    folder = write_photographs(tmp_path_factory.mktemp("photographs"), train=40)
    return open_source(f"folder:{folder}", "train", cache_dir=tmp_path_factory.mktemp("decoded"))


def opened(data: ImageSet, name: str, size: int | None = 16, **options: object) -> Loader:
    chosen = LoaderOptions(**{"batch_size": 18, "seed": 3, **options})  # type: ignore[arg-type]
    shown = None if size is None else (size, size)
    space = ViewSpace.parse(name, seed=5)
    return labels_loader(data, space, NORMAL, min(4, space.size), chosen, size=shown)


@pytest.mark.parametrize("name", ["rrc-flip", EVERYTHING])
def test_photographs_give_the_batches_that_they_give_from_memory(photographs: ImageSet, name: str) -> None:
    streamed, counted = stored(photographs)
    one, other = opened(streamed, name), opened(photographs, name)
    assert one.streams
    require_same_batches(one, other, epochs=(0, 3, 1))
    require_same_tail(one, other, epoch=2, start=1)
    require_shares(other, [opened(streamed, name, rank=Rank(rank, 2)) for rank in range(2)], epoch=1)
    require_kept_batches_stay(one)
    counted.reads.clear()
    list(one.epoch(5, start=2))
    assert not counted.reads


@pytest.mark.parametrize("name", LATTICES)
def test_pictures_of_one_size_do_too(name: str) -> None:
    data = images(seed=2, count=40)
    streamed, _ = stored(data)
    require_same_batches(opened(streamed, name, None), opened(data, name, None), epochs=(0, 1))
    space = ViewSpace.parse(name, seed=1)
    golden = [
        choose_renderer(one.images, space, NORMAL).golden(min(3, space.size)) for one in (streamed, data)
    ]
    assert golden[0] == golden[1]
    assert (streamed.uniform, streamed.shape) == (True, (10, 10, 3))


def test_facts_that_nobody_knows_are_those_of_memory_in_one_pass(photographs: ImageSet) -> None:
    for data in (photographs, images(seed=2, count=40)):
        streamed, counted = stored(data, known=False)
        assert (streamed.fingerprint, streamed.statistics) == (data.fingerprint, data.statistics)
        assert set(counted.reads.values()) == {1}
        limited = streamed.first(7)
        assert (limited.fingerprint, limited.statistics) == (
            data.first(7).fingerprint,
            data.first(7).statistics,
        )


def test_crops_that_do_not_fit_are_refused_as_from_memory() -> None:
    streamed, counted = stored(images(seed=2, count=4))
    with pytest.raises(UsageError):
        opened(streamed, "crop10-flip", None)
    assert not counted.reads


def test_a_picture_that_cannot_be_read_ends_the_loop_at_its_batch_with_sample_and_path(
    photographs: ImageSet,
) -> None:
    streamed, counted = stored(photographs)
    whole = list(opened(photographs, "rrc-flip").epoch(0))
    counted.broken = int(whole[1].samples[9])
    seen: list[Batch] = []
    with pytest.raises(DataError, match=rf"sample {counted.broken} \(cat/{counted.broken}\.jpg\)"):
        seen.extend(opened(streamed, "rrc-flip").epoch(0))
    require_equal(seen[0], whole[0])
    assert (len(seen), reading_threads()) == (1, [])


def test_a_picture_of_another_size_is_refused(photographs: ImageSet) -> None:
    streamed, counted = stored(photographs)
    loader = opened(streamed, "rrc-flip")
    counted._images = [picture[:-1] for picture in photographs.images]
    with pytest.raises(DataError, match="sample"):
        next(loader.epoch(0))


def test_an_iterator_that_ends_or_is_closed_leaves_no_thread_and_no_descriptor(photographs: ImageSet) -> None:
    streamed, counted = stored(photographs)
    loader, before = opened(streamed, "rrc-flip", batch_size=4), descriptors()
    shown = loader.epoch(0)
    next(shown)
    assert counted.opened is not None
    shown.close()
    assert (reading_threads(), descriptors()) == ([], before)
    for _ in loader.epoch(1):
        break
    assert (reading_threads(), descriptors()) == ([], before)
    shown, other = loader.epoch(2), loader.epoch(3)
    for _ in range(loader.steps):
        next(shown)
        next(other)
    # Both gave their last batch, and nobody asked for more.
    assert reading_threads() == []
    with pytest.raises(ZeroDivisionError):
        [1 // 0 for _ in loader.epoch(4)]
    del shown, other
    assert (reading_threads(), descriptors()) == ([], before)


def test_no_more_is_read_ahead_than_a_few_batches(photographs: ImageSet) -> None:
    streamed, counted = stored(photographs)
    shown = opened(streamed, "rrc-flip", batch_size=4).epoch(0)
    next(shown)
    shown.close()
    assert sum(counted.reads.values()) <= 3 * 4


def test_a_thread_holds_few_large_pictures_at_a_time(
    photographs: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed, counted = stored(photographs)
    monkeypatch.setattr("bancache.views.streamed_renderer._HELD_BYTES", 3 * counted.nbytes // len(counted))
    taken, take = list[int](), StreamedRenderer._taken

    def count(self: StreamedRenderer, used: Integers) -> Pictures:
        taken.append(len(used))
        return take(self, used)

    monkeypatch.setattr(StreamedRenderer, "_taken", count)
    require_same_batches(opened(streamed, EVERYTHING), opened(photographs, EVERYTHING), epochs=(0,))
    assert max(taken) == 2 * 3  # three views and their partners


def test_what_goes_to_a_gpu_has_the_same_bits(photographs: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pictures of a batch in one run of bytes, as a kernel wants them; here torch takes the kernel's place."""
    init = StreamedRenderer.__init__

    def at_once(self: StreamedRenderer, *arguments: object) -> None:
        init(self, *arguments)  # type: ignore[arg-type]
        self._at_once = True

    monkeypatch.setattr(StreamedRenderer, "__init__", at_once)
    streamed, _ = stored(photographs)
    for name in ("rrc-flip", EVERYTHING):
        one, other = opened(streamed, name), opened(photographs, name)
        require_same_batches(one, other, epochs=(0, 1))
        samples = np.array([3, 9, 3])
        views = ViewSpace.parse(name, seed=5).view_ids(samples, 2)
        mine, theirs = (loader._renderer for loader in (one, other))
        assert torch.equal(
            mine.render(*mine.to_device(samples, views)), theirs.render(*theirs.to_device(samples, views))
        )


def test_evaluation_streams_too(photographs: ImageSet) -> None:
    streamed, counted = stored(photographs)
    space = ViewSpace.parse("rrc-flip")
    one, other = (
        EvaluationLoader(data, space, NORMAL, size=(16, 16), batch_size=9, device=CPU)
        for data in (streamed, photographs)
    )
    for _ in range(2):
        for batch, expected in zip(one, other, strict=True):
            require_equal(batch, expected)
    assert set(counted.reads.values()) == {2}
    assert reading_threads() == []


def test_blocks_are_read_as_runs(photographs: ImageSet) -> None:
    streamed, counted = stored(photographs)
    loader = opened(streamed, "rrc-flip", batch_size=16, shuffle_block=2)
    require_same_batches(loader, opened(photographs, "rrc-flip", batch_size=16, shuffle_block=2), epochs=(0,))
    counted.reads.clear()
    shown = loader.epoch(1)
    first = next(shown)
    shown.close()
    assert len(set((first.samples // 2).tolist())) == 8


def test_a_training_that_is_stopped_leaves_no_thread_and_goes_on_with_the_same_bits(
    spec: DataSpec, data: ImageSet, held_out: ImageSet, tmp_path: Path
) -> None:
    streamed, _ = stored(data)
    run = run_for_labels(architecture(), replace(RECIPE, epochs=1), 0, spec, data, "crop1-flip")
    wanted = train(run, data, held_out, TrainerOptions(tmp_path / "a.pt", CPU)).checkpoint.fingerprint
    stop = Interrupt()
    stop.signal_number = 15
    with pytest.raises(StoppedError):
        train(run, streamed, held_out, TrainerOptions(tmp_path / "b.pt", CPU), interrupt=stop)
    assert reading_threads() == []
    assert (
        train(run, streamed, held_out, TrainerOptions(tmp_path / "b.pt", CPU)).checkpoint.fingerprint
        == wanted
    )
