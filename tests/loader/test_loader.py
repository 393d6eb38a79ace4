"""The student gets the teacher's pixels and the teacher's soft targets for them."""

from __future__ import annotations

import gc
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.loader import require_equal, require_shares
from contracts.tiny import CPU, dump_tiny

from bancache import View, open_loader
from bancache.cache.reader import open_cache
from bancache.errors import CacheDamagedError, UsageError
from bancache.loader import Batch, Loader, LoaderOptions
from bancache.loader.cache_targets import CacheTargets, Kept
from bancache.models.teacher import OnlineTargets, load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.views import ViewSpace
from bancache.views.factory import choose_renderer
from bancache.views.lattice_renderer import LatticeRenderer
from bancache.views.model_input import Normalization


@pytest.fixture(scope="module")
def cache_path(
    tmp_path_factory: pytest.TempPathFactory, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> Path:
    """An exhaustive float32 cache."""
    path = tmp_path_factory.mktemp("cache") / "gen0.zarr"
    dump_tiny(teacher_path, spec, data, path, num_views=18, encoding="float32")
    return path


def loader_of(cache_path: Path, data: ImageSet, *, batch_size: int = 16, keep: Kept = "device") -> Loader:
    cache = open_cache(cache_path)
    space = ViewSpace.from_dict(cache.manifest.view_space)
    renderer = choose_renderer(
        data.images, space, Normalization.from_dict(cache.manifest.pixels["normalisation"])
    )
    options = LoaderOptions(batch_size, seed=9)
    targets = CacheTargets(cache, keep=keep)
    return Loader(renderer, data.labels, cache.manifest.num_views, options, targets=targets)


def by_address(batches: list[Batch]) -> dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]]:
    """Return image and target of each (sample, view)."""
    found = {}
    for batch in batches:
        assert batch.targets is not None
        for row, address in enumerate(zip(batch.samples.tolist(), batch.views.tolist(), strict=True)):
            found[address] = (batch.images[row], batch.targets[row])
    return found


def test_the_student_gets_the_teachers_pixels_bit_for_bit(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader renders every tensor that went into the teacher during the dump."""
    seen: dict[tuple[int, int], torch.Tensor] = {}
    render = LatticeRenderer.render

    def spy(self: LatticeRenderer, samples: torch.Tensor, view_ids: torch.Tensor) -> torch.Tensor:
        shown = render(self, samples, view_ids)
        seen.update(zip(zip(samples.tolist(), view_ids.tolist(), strict=True), shown.clone(), strict=True))
        return shown

    monkeypatch.setattr(LatticeRenderer, "render", spy)
    dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr", num_views=3, batch_size=7)
    monkeypatch.undo()
    for batch_size in (1, 16, 96):
        loader = loader_of(tmp_path / "a.zarr", data, batch_size=batch_size)
        for epoch in range(3):
            for address, (image, _) in by_address(list(loader.epoch(epoch))).items():
                assert torch.equal(image, seen[address])


def test_targets_are_the_teachers_probabilities_for_those_pixels(
    cache_path: Path, teacher_path: Path, data: ImageSet
) -> None:
    teacher = load_teacher(str(teacher_path), device=CPU)
    for epoch in (0, 5, 17, 20):
        for batch in loader_of(cache_path, data).epoch(epoch):
            assert batch.targets is not None
            expected = torch.softmax(teacher.logits(batch.images), dim=1)
            torch.testing.assert_close(batch.targets, expected, rtol=1e-5, atol=1e-7)
            assert isinstance(batch.labels, torch.Tensor)
            assert batch.labels.tolist() == data.labels[batch.samples].tolist()


def test_an_exhaustive_cache_shows_every_view_there_is(cache_path: Path, data: ImageSet) -> None:
    loader = loader_of(cache_path, data)
    seen = {key for epoch in range(18) for key in by_address(list(loader.epoch(epoch)))}
    assert len(seen) == 96 * 18


def test_an_epoch_is_a_pure_function_of_its_number(cache_path: Path, data: ImageSet) -> None:
    loader = loader_of(cache_path, data)
    first = list(loader.epoch(2))
    list(loader.epoch(0))
    again = list(loader.epoch(2))
    tail = list(loader_of(cache_path, data).epoch(2, start=4))
    for batches, expected in ((again, first), (tail, first[4:])):
        for one, other in zip(batches, expected, strict=True):
            assert torch.equal(one.images, other.images)
            assert one.targets is not None
            assert other.targets is not None
            assert torch.equal(one.targets, other.targets)
            np.testing.assert_array_equal(one.samples, other.samples)


def test_successive_loops_yield_successive_epochs(cache_path: Path, data: ImageSet) -> None:
    """Also after a loop that ended early, and whatever ``epoch`` is asked for in between."""
    loader, expected = open_loader(cache_path, batch_size=16), open_loader(cache_path, batch_size=16)
    assert len(loader) == len(data) // 16 == 6
    for epoch in range(3):
        batches = list(loader)
        assert len(batches) == len(loader)
        for batch, other in zip(batches, expected.epoch(epoch), strict=True):
            require_equal(batch, other)
        list(loader.epoch(17))
    for _ in loader:  # epoch 3
        break
    require_equal(next(iter(loader)), next(expected.epoch(4)))


def test_iterators_of_two_epochs_do_not_disturb_each_other(cache_path: Path) -> None:
    loader, expected = open_loader(cache_path, batch_size=16), open_loader(cache_path, batch_size=16)
    first, second = list(expected.epoch(0)), list(expected.epoch(1))
    for pair, *others in zip(zip(loader, loader, strict=True), first, second, strict=True):
        for batch, other in zip(pair, others, strict=True):
            require_equal(batch, other)


def test_a_batch_unpacks_in_the_order_of_a_view(cache_path: Path) -> None:
    batch = next(iter(open_loader(str(cache_path), batch_size=16)))
    images, labels, targets, samples, views = batch
    assert images is batch.images
    assert labels is batch.labels
    assert targets is batch.targets
    assert samples is batch.samples
    assert views is batch.views
    assert [name for name in View._fields if getattr(batch, name) is not None] == list(View._fields)


def test_addresses_of_a_batch_can_be_written_to_where_all_samples_show_one_view_index(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    """torch.from_numpy warns of arrays that cannot."""
    space = ViewSpace.parse("crop1-flip-mixup0.8", seed=2)
    dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr", space=space, num_views=2)
    batch = next(open_loader(tmp_path / "a.zarr", batch_size=16).epoch(1))
    assert torch.from_numpy(batch.views).tolist() == [1] * 16
    assert len(torch.from_numpy(batch.samples)) == 16


@pytest.mark.parametrize("count", [2, 4, 16])
def test_the_shares_of_several_processes_are_the_batch_of_one(cache_path: Path, count: int) -> None:
    shares = [open_loader(cache_path, batch_size=16, rank=rank, world_size=count) for rank in range(count)]
    for epoch in (0, 3):
        require_shares(open_loader(cache_path, batch_size=16), shares, epoch)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(cache_path: Path) -> None:
    with pytest.raises(UsageError, match=r"16 .* 3"):
        open_loader(cache_path, batch_size=16, rank=0, world_size=3)


def test_epochs_are_counted_from_0(cache_path: Path) -> None:
    with pytest.raises(UsageError, match="epoch -1"):
        next(open_loader(cache_path).epoch(-1))
    with pytest.raises(UsageError, match="step -1"):
        next(open_loader(cache_path).epoch(0, start=-1))


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": -3}, {"seed": -1}, {"seed": 1 << 64}])
def test_batches_of_nothing_and_seeds_that_are_none_are_refused(
    cache_path: Path, options: dict[str, int]
) -> None:
    with pytest.raises(UsageError, match=str(*options.values())):
        open_loader(cache_path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("keep", "held"), [("host", 5), ("none", 0)])
def test_views_kept_elsewhere_or_nowhere_give_the_same_batches(
    cache_path: Path, data: ImageSet, keep: Kept, held: int
) -> None:
    """The host keeps the four views that were shown and the one that was fetched ahead."""
    near, far = loader_of(cache_path, data), loader_of(cache_path, data, keep=keep)
    for epoch in (0, 1, 2, 3, 0):
        for one, other in zip(near.epoch(epoch), far.epoch(epoch), strict=True):
            assert one.targets is not None
            assert other.targets is not None
            assert torch.equal(one.targets, other.targets)
    assert isinstance(far.targets, CacheTargets)
    assert len(far.targets._kept) == held


def test_a_loader_that_nobody_has_any_more_frees_its_memory_at_once(cache_path: Path, data: ImageSet) -> None:
    """Of a study's students each has one, with targets as large as half a GPU; Python collects cycles hours later."""
    loader = loader_of(cache_path, data)
    next(iter(loader))
    gone = [weakref.ref(part) for part in (loader, loader.targets)]
    gc.disable()
    try:
        del loader
        until = time.monotonic() + 10  # a thread may still read the next view
        while any(part() is not None for part in gone) and time.monotonic() < until:
            time.sleep(0.01)
        assert [part() for part in gone] == [None, None]
    finally:
        gc.enable()


def test_batches_made_on_the_host_appear_where_they_are_wanted(cache_path: Path, data: ImageSet) -> None:
    """The meta device stands for one whose memory does not hold the images; codes cannot be read across devices."""
    near = loader_of(cache_path, data)
    elsewhere = LoaderOptions(16, seed=9, device="meta", decode=False)
    far = Loader(near._renderer, data.labels, 18, elsewhere, targets=near.targets)
    assert near.in_place
    assert not far.in_place
    batch = next(far.epoch(0))
    assert batch.targets is not None
    assert isinstance(batch.labels, torch.Tensor)
    assert {part.device.type for part in (batch.images, batch.labels, batch.targets)} == {"meta"}
    assert batch.targets.shape == (16, 3)
    assert batch.codes is None
    np.testing.assert_array_equal(batch.samples, next(near.epoch(0)).samples)


def test_samples_of_a_batch_show_views_of_their_own(cache_path: Path, data: ImageSet) -> None:
    batch = next(iter(loader_of(cache_path, data, batch_size=96).epoch(0)))
    assert len(set(batch.views.tolist())) == 18


def test_an_online_teacher_gives_the_targets_of_its_float32_cache(
    cache_path: Path, teacher_path: Path, data: ImageSet
) -> None:
    loader = loader_of(cache_path, data)
    online = OnlineTargets(load_teacher(str(teacher_path), device=CPU))
    for batch in loader.epoch(1):
        live = online.probabilities(torch.from_numpy(batch.samples), batch.images)
        torch.testing.assert_close(batch.targets, live, rtol=1e-5, atol=1e-7)


def test_damage_is_named_when_the_view_is_needed(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr")
    chunk = tmp_path / "a.zarr" / "q" / "c" / "2" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    loader = loader_of(tmp_path / "a.zarr", data)
    list(loader.epoch(0))
    with pytest.raises(CacheDamagedError, match=r"shard 2 .*view 2, samples 0 to 95"):
        list(loader.epoch(2))


def test_a_temperature_beyond_the_encoding_is_refused(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    result, _ = dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr")
    with pytest.raises(UsageError, match=r"'root4'.* 1.* 4"):
        CacheTargets(result.cache, temperature=4.0)
