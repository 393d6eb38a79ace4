"""The student sees what the teacher saw, and is told what the teacher said of it."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from contracts.loader import require_shares
from contracts.tiny import CPU, dump_tiny

from bancache import open_loader
from bancache.cache.reader import open_cache
from bancache.errors import CacheDamagedError, UsageError
from bancache.loader import Batch, Loader
from bancache.loader.cache_targets import CacheTargets, Kept
from bancache.models.teacher import OnlineTargets, load_teacher
from bancache.sources.base import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system import numba as compiled
from bancache.views import Plan, ViewSpace
from bancache.views.renderer import Normalization, Renderer


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
    renderer = Renderer(data.images, space, Normalization.from_dict(cache.manifest.pixels["normalisation"]))
    plan = Plan(len(data), cache.manifest.num_views, seed=9)
    targets = CacheTargets(cache, keep=keep)
    return Loader(renderer, data.labels, plan, batch_size=batch_size, targets=targets)


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
    """Every tensor that goes into the teacher during a dump is kept, and found again in the loader."""
    seen: dict[tuple[int, int], torch.Tensor] = {}
    render = Renderer.render

    def spy(self: Renderer, samples: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        shown = render(self, samples, ids)
        seen.update(zip(zip(samples.tolist(), ids.tolist(), strict=True), shown.clone(), strict=True))
        return shown

    monkeypatch.setattr(Renderer, "render", spy)
    dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr", num_views=3, batch_size=7)
    monkeypatch.undo()
    for batch_size in (1, 16, 96):
        loader = loader_of(tmp_path / "a.zarr", data, batch_size=batch_size)
        for epoch in range(3):
            for address, (image, _) in by_address(list(loader.epoch(epoch))).items():
                assert torch.equal(image, seen[address])


def test_targets_are_what_the_teacher_says_of_those_pixels(
    cache_path: Path, teacher_path: Path, data: ImageSet
) -> None:
    teacher = load_teacher(str(teacher_path), device=CPU)
    for epoch in (0, 5, 17, 20):
        for batch in loader_of(cache_path, data).epoch(epoch):
            assert batch.targets is not None
            expected = torch.softmax(teacher.logits(batch.images), dim=1)
            torch.testing.assert_close(batch.targets, expected, rtol=1e-5, atol=1e-7)
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


@pytest.mark.parametrize("count", [2, 4, 16])
def test_what_processes_share_is_the_batch_of_one(cache_path: Path, count: int) -> None:
    shares = [open_loader(cache_path, batch_size=16, rank=rank, world_size=count) for rank in range(count)]
    for epoch in (0, 3):
        require_shares(open_loader(cache_path, batch_size=16), shares, epoch)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(cache_path: Path) -> None:
    with pytest.raises(UsageError, match="a batch of 16 cannot be shared evenly by 3 processes"):
        open_loader(cache_path, batch_size=16, rank=0, world_size=3)


@pytest.mark.parametrize(("keep", "held"), [("host", 5), ("none", 0)])
def test_views_kept_elsewhere_or_nowhere_give_the_same_batches(
    cache_path: Path, data: ImageSet, keep: Kept, held: int
) -> None:
    """What the host keeps are the four views that were shown and the one that was fetched ahead of its turn."""
    near, far = loader_of(cache_path, data), loader_of(cache_path, data, keep=keep)
    for epoch in (0, 1, 2, 3, 0):
        for one, other in zip(near.epoch(epoch), far.epoch(epoch), strict=True):
            assert one.targets is not None
            assert other.targets is not None
            assert torch.equal(one.targets, other.targets)
    assert isinstance(far.targets, CacheTargets)
    assert len(far.targets._kept) == held


def test_batches_made_on_the_host_appear_where_they_are_wanted(cache_path: Path, data: ImageSet) -> None:
    """On a device without numbers, as one without room for the images; codes cannot be read across."""
    near = loader_of(cache_path, data)
    assert isinstance(near.targets, CacheTargets)
    far = Loader(
        near._renderer,
        data.labels,
        near.plan,
        batch_size=16,
        targets=near.targets,
        device="meta",
        decode=False,
    )
    assert near.in_place
    assert not far.in_place
    batch = next(far.epoch(0))
    assert batch.targets is not None
    assert {part.device.type for part in (batch.images, batch.labels, batch.targets)} == {"meta"}
    assert batch.targets.shape == (16, 3)
    assert batch.codes is None
    np.testing.assert_array_equal(batch.samples, next(near.epoch(0)).samples)


def test_samples_of_a_batch_show_views_of_their_own(cache_path: Path, data: ImageSet) -> None:
    batch = next(iter(loader_of(cache_path, data, batch_size=96).epoch(0)))
    assert len(set(batch.views.tolist())) == 18


def test_an_online_teacher_answers_like_its_float32_cache(
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
    with pytest.raises(CacheDamagedError, match=r"shard 2 \(view 2, samples 0 to 95\) is damaged"):
        list(loader.epoch(2))


def test_a_temperature_beyond_the_encoding_is_refused(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    result, _ = dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr")
    with pytest.raises(UsageError, match="'root4' is faithful up to temperature 1, not at 4"):
        CacheTargets(result.cache, temperature=4.0)


def test_answers_change_over_to_numba_in_the_middle_without_a_trace(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = pytest.importorskip("bancache.encodings.fused")
    dump_tiny(teacher_path, spec, data, tmp_path / "gen0.zarr", num_views=2)
    cache, samples, nothing = open_cache(tmp_path / "gen0.zarr"), torch.arange(len(data)), torch.empty(0)
    monkeypatch.setattr(compiled, "WORTH_AFTER_VIEWS", 2 * len(data))
    fast = Mock(wraps=fused.RowDecoder.decode)
    monkeypatch.setattr(fused.RowDecoder, "decode", lambda decoder, samples: fast(decoder, samples))
    long, usual = CacheTargets(cache), CacheTargets(cache, accelerator="none")
    for turn in range(4):
        for targets in (long, usual):
            targets.begin(turn % 2, (turn + 1) % 2)
        order = samples.flip(0) if turn % 2 else samples
        assert torch.equal(long.probabilities(order, nothing), usual.probabilities(order, nothing))
    assert fast.call_count == 2


def test_numba_is_asked_for_only_where_it_is(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump_tiny(teacher_path, spec, data, tmp_path / "gen0.zarr", num_views=2)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(compiled, "WORTH_AFTER_VIEWS", 0)
    with pytest.raises(UsageError, match="numba is not installed"):
        CacheTargets(open_cache(tmp_path / "gen0.zarr"), accelerator="numba")
    targets = CacheTargets(open_cache(tmp_path / "gen0.zarr"))
    targets.begin(0, 1)
    assert targets.probabilities(torch.arange(3), torch.empty(0)).shape == (3, 3)
