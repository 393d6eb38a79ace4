"""Batches are the same for every placement; the placement follows from bytes and is reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from contracts.calling import refuse
from contracts.crossing import as_if_on_a_gpu
from contracts.loader import (
    most_views_held,
    require_kept_batches_stay,
    require_same_batches,
    require_same_tail,
)
from contracts.tiny import CPU, dump_tiny

from bancache.cache.reader import Cache, open_cache
from bancache.encodings import Encoding, parse_encoding
from bancache.errors import UsageError
from bancache.loader import Loader, LoaderOptions
from bancache.loader import open as opening
from bancache.loader.cache_targets import CacheTargets
from bancache.loader.open import cached_loader
from bancache.loader.placement import MemoryBudget, Placement, choose_placement, describe
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.progress import Silent

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
    return cached_loader(cache, data, LoaderOptions(16, seed=9, placement=placement, device=device))


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


def test_targets_that_a_cpu_keeps_are_decoded_where_the_batch_appears(
    cache: Cache, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU would round them otherwise than a GPU; the codes take a quarter of the bytes, too."""
    monkeypatch.setattr(opening, "free_bytes", lambda device: 0)
    loader = loader_of(cache, data, "cpu", CUDA)
    samples = loader.begin(0).samples[:16]
    decoded: list[torch.device] = []

    def spy(encoding: Encoding, fields: dict[str, torch.Tensor], temperature: float) -> torch.Tensor:
        decoded.extend(part.device for part in fields.values())
        return fields["q"].to(torch.float32)

    kind = type(parse_encoding(cache.manifest.encoding["name"], cache.manifest.classes))
    monkeypatch.setattr(kind, "probabilities", spy)
    with as_if_on_a_gpu(monkeypatch):
        batch = loader.batch(torch.from_numpy(samples), torch.from_numpy(samples % 18))
    assert {device.type for device in decoded} == {"cuda"}
    assert batch.images.device.type == "cuda"


def test_streaming_keeps_two_views_in_memory(cache: Cache, data: ImageSet) -> None:
    """And a third for a moment at the change of epochs; where all views are kept, the same count finds all."""
    assert most_views_held(lambda counting: loader_of(counting, data, "disk"), cache) <= 3
    assert most_views_held(lambda counting: loader_of(counting, data, "cpu"), cache) == 5


def test_later_views_arrive_in_the_same_buffers_for_a_captured_step(cache: Cache, data: ImageSet) -> None:
    loader, expected = loader_of(cache, data, "disk"), loader_of(cache, data)
    list(loader.epoch(0))
    targets = loader.targets
    assert isinstance(targets, CacheTargets)
    targets.hold()
    before = targets.codes()
    require_same_batches(loader, expected, (1, 4, 0, 2, 2))
    after = targets.codes()
    if cache.manifest.encoding["name"] == "root4":
        assert before is not None
        assert after is not None
        assert before.q.data_ptr() == after.q.data_ptr()


def test_codes_are_left_to_a_loss_that_can_read_them(cache: Cache, data: ImageSet) -> None:
    loader = cached_loader(cache, data, LoaderOptions(16, seed=9, decode=False))
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


ROOMY = MemoryBudget(images=100, targets=800, view=10, free_on_device=2000, free_on_host=2000)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (ROOMY, "device"),
        (replace(ROOMY, free_on_device=1820), "device"),  # 100 + 800 + 10 are half of it
        (replace(ROOMY, free_on_device=1818), "pinned"),
        (replace(ROOMY, free_on_device=260), "pinned"),  # 100 + 3 · 10 are half of it
        (replace(ROOMY, free_on_device=260, free_on_host=1600), "pinned"),
        (replace(ROOMY, free_on_device=260, free_on_host=1598), "disk"),
        (replace(ROOMY, free_on_device=258), "cpu"),
        (replace(ROOMY, targets=10, free_on_device=240), "device"),  # one view, twice
        (replace(ROOMY, targets=10, free_on_device=238), "cpu"),
        (replace(ROOMY, targets=0, view=0, free_on_device=200), "device"),
        (replace(ROOMY, targets=0, view=0, free_on_device=198), "cpu"),
    ],
)
def test_on_a_gpu_the_fastest_placement_that_fits_is_chosen(
    budget: MemoryBudget, expected: Placement
) -> None:
    assert choose_placement("auto", budget, CUDA) == expected
    assert choose_placement("disk", budget, CUDA) == "disk"


@pytest.mark.parametrize(("free", "expected"), [(1600, "cpu"), (1598, "disk")])
def test_on_a_cpu_targets_are_read_from_disk_if_they_need_more_than_half_the_memory(
    free: int, expected: str
) -> None:
    budget = replace(ROOMY, free_on_device=0, free_on_host=free)
    assert choose_placement("auto", budget, CPU) == expected
    assert choose_placement("cpu", budget, CPU) == "cpu"


@pytest.mark.parametrize("placement", ["device", "pinned"])
def test_memory_of_a_gpu_is_refused_where_there_is_none(placement: Placement) -> None:
    with pytest.raises(UsageError, match=f"'{placement}' .* 'cpu'"):
        choose_placement(placement, ROOMY, CPU)


def test_the_command_refuses_it_too(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr")
    hint = refuse(
        2,
        r".*'pinned'.* 'cpu'",
        "train-student",
        "--cache",
        tmp_path / "a.zarr",
        "--device",
        "cpu",
        "--placement",
        "pinned",
    )
    assert "--placement" in hint


def test_the_choice_is_reported_with_its_numbers(cache: Cache, data: ImageSet) -> None:
    class Told(Silent):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def log(self, text: str) -> None:
            self.notes.append(text)

    told = Told()
    cached_loader(cache, data, LoaderOptions(16, seed=9, placement="disk"), progress=told)
    (note,) = told.notes
    assert "0.0 MB read from disk" in note
    budget = MemoryBudget(153_600_000, 810_000_000, 5_000_000, 140_000_000_000, 120_000_000_000)
    sentence = describe("pinned", budget, CUDA)
    for number in (
        "153.6 MB on cuda",
        "810.0 MB in page-locked",
        "140,000.0 MB on cuda",
        "120,000.0 MB on the",
    ):
        assert number in sentence
