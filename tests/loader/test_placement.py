"""Wherever images and answers lie the batches are the same; where that is follows from bytes and is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from contracts.calling import refuse
from contracts.loader import (
    most_views_held,
    require_kept_batches_stay,
    require_same_batches,
    require_same_tail,
)
from contracts.tiny import CPU, dump_tiny

from bancache.cache.reader import Cache, open_cache
from bancache.errors import UsageError
from bancache.loader import Loader
from bancache.loader.epoch_sampler import EpochSampler
from bancache.loader.open import cached_loader
from bancache.loader.placement import MemoryBudget, Placement, choose_placement, free_on_host, sentence
from bancache.sources.base import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.progress import Silent
from bancache.views import Plan, ViewSpace

CUDA = torch.device("cuda")
ON_CPU: tuple[Placement, ...] = ("cpu", "disk", "auto")
ON_GPU: tuple[Placement, ...] = get_args(Placement)


@pytest.fixture(scope="module", params=["root4", "int8"])
def cache(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    teacher_path: Path,
    spec: DataSpec,
    data: ImageSet,
) -> Cache:
    """Five views, in an encoding with one field and in one with two."""
    path = tmp_path_factory.mktemp("cache") / "gen0.zarr"
    dump_tiny(teacher_path, spec, data, path, num_views=5, encoding=request.param)
    return open_cache(path)


def loader_of(
    cache: Cache, data: ImageSet, placement: Placement = "cpu", device: torch.device = CPU
) -> Loader:
    return cached_loader(cache, data, batch_size=16, seed=9, placement=placement, device=device)


@pytest.mark.parametrize("placement", ON_CPU)
def test_batches_are_the_same_from_everywhere_on_a_cpu(
    cache: Cache, data: ImageSet, placement: Placement
) -> None:
    loader, expected = loader_of(cache, data, placement), loader_of(cache, data)
    require_same_batches(loader, expected, (0, 1, 2, 4, 3, 3, 11))
    require_same_tail(loader, expected, 2, 4)
    require_kept_batches_stay(loader)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize("placement", ON_GPU)
def test_batches_are_the_same_from_everywhere_on_a_gpu(
    cache: Cache, data: ImageSet, placement: Placement
) -> None:
    """Images, labels and addresses are the CPU's bits; probabilities those of this device."""
    loader = loader_of(cache, data, placement, CUDA)
    require_same_batches(loader, loader_of(cache, data, "device", CUDA), (0, 1, 2, 4, 3, 3, 11))
    require_same_tail(loader, loader_of(cache, data, "device", CUDA), 2, 4)
    for batch, expected in zip(loader.epoch(1), loader_of(cache, data).epoch(1), strict=True):
        assert torch.equal(batch.images.cpu(), expected.images)
        assert batch.targets is not None
        assert expected.targets is not None
        torch.testing.assert_close(batch.targets.cpu(), expected.targets, rtol=1e-5, atol=1e-7)


def test_streaming_holds_two_views_however_many_views_there_are(cache: Cache, data: ImageSet) -> None:
    """One more while the next one is taken over; where all are kept, the same count finds all."""
    assert most_views_held(lambda counting: loader_of(counting, data, "disk"), cache) <= 3
    assert most_views_held(lambda counting: loader_of(counting, data, "cpu"), cache) == 5


def test_a_held_view_keeps_its_addresses_and_its_bits(cache: Cache, data: ImageSet) -> None:
    """What a captured step needs: later views arrive where the first one lay."""
    loader, expected = loader_of(cache, data, "disk"), loader_of(cache, data)
    list(loader.epoch(0))
    loader.targets.hold()  # type: ignore[union-attr]
    places = [part.data_ptr() for part in loader.targets._now.values()]  # type: ignore[union-attr]
    require_same_batches(loader, expected, (1, 4, 0, 2, 2))
    assert [part.data_ptr() for part in loader.targets._now.values()] == places  # type: ignore[union-attr]


def test_codes_are_left_to_a_loss_that_can_read_them(cache: Cache, data: ImageSet) -> None:
    loader = cached_loader(cache, data, batch_size=16, seed=9, decode=False)
    batch = next(loader.epoch(0))
    if cache.manifest.encoding["name"] == "root4":
        assert batch.targets is None
        assert batch.codes is not None
        assert torch.equal(batch.codes.q, torch.from_numpy(cache.read_view(0)["q"]))
        assert batch.rows is not None
        assert batch.rows.tolist() == batch.samples.tolist()
    else:
        assert batch.codes is None
        assert batch.targets is not None


def test_addresses_found_ahead_are_those_found_in_time() -> None:
    plan, space = Plan(40, 5, seed=3), ViewSpace.parse("crop1-flip")
    ahead = EpochSampler(plan, space, 32, ahead=True)
    for epoch in (0, 1, 2, 2, 7, 0):
        found = ahead.epoch(epoch)
        assert found.samples.tolist() == plan.order(epoch)[:32].tolist()
        assert found.views.tolist() == space.view_ids(plan.order(epoch)[:32], epoch % 5).tolist()


# Where it lies.

ROOMY = MemoryBudget(images=100, answers=800, view_index=10, free_on_device=2000, free_on_host=2000)


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (ROOMY, "device"),
        (replace(ROOMY, free_on_device=1820), "device"),  # 100 + 800 + 10 are half of it
        (replace(ROOMY, free_on_device=1818), "pinned"),
        (replace(ROOMY, free_on_device=260), "pinned"),  # 100 + 3 · 10 are half of it
        (replace(ROOMY, free_on_device=260, free_on_host=1600), "pinned"),
        (replace(ROOMY, free_on_device=260, free_on_host=1598), "disk"),
        (replace(ROOMY, free_on_device=258), "cpu"),
        (replace(ROOMY, answers=0, view_index=0, free_on_device=200), "device"),
        (replace(ROOMY, answers=0, view_index=0, free_on_device=198), "cpu"),
    ],
)
def test_on_a_gpu_the_nearest_place_that_holds_it_is_chosen(room: MemoryBudget, expected: Placement) -> None:
    assert choose_placement("auto", room, CUDA) == expected
    assert choose_placement("disk", room, CUDA) == "disk"


@pytest.mark.parametrize(("free", "expected"), [(1600, "cpu"), (1598, "disk")])
def test_on_a_cpu_answers_are_streamed_where_half_the_memory_is_less(free: int, expected: str) -> None:
    room = replace(ROOMY, free_on_device=0, free_on_host=free)
    assert choose_placement("auto", room, CPU) == expected
    assert choose_placement("cpu", room, CPU) == "cpu"


@pytest.mark.parametrize("placement", ["device", "pinned"])
def test_memory_of_a_gpu_is_refused_where_there_is_none(placement: Placement) -> None:
    with pytest.raises(UsageError, match=f"residence '{placement}' is memory of a CUDA device or for one"):
        choose_placement(placement, ROOMY, CPU)


def test_the_command_refuses_it_too(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr")
    hint = refuse(
        2,
        "residence 'pinned' is memory of a CUDA device or for one, and this run is on 'cpu'",
        "train-student",
        "--cache",
        tmp_path / "a.zarr",
        "--device",
        "cpu",
        "--residence",
        "pinned",
    )
    assert hint == "use --residence auto, cpu or disk"


def test_the_choice_is_told_with_its_numbers(cache: Cache, data: ImageSet) -> None:
    class Told(Silent):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    told = Told()
    cached_loader(cache, data, batch_size=16, seed=9, placement="disk", progress=told)
    (note,) = told.notes
    assert "teacher's answers: 0.0 MB read from disk, one view an epoch (free: " in note
    room = MemoryBudget(153_600_000, 810_000_000, 5_000_000, 140_000_000_000, 120_000_000_000)
    assert sentence("pinned", room, CUDA) == (
        "images: 153.6 MB on cuda; teacher's answers: 810.0 MB in page-locked memory of the host, copied ahead "
        "(free: 140,000.0 MB on cuda, 120,000.0 MB on the host)"
    )


def test_free_memory_of_the_host_is_some_and_not_more_than_the_machine_has() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < free_on_host() <= total
