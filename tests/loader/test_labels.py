"""The labels of mixed views: both, and how much of each is seen."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.loader import require_equal, require_shares
from contracts.tiny import dump_tiny
from torch.utils.data import DataLoader

from bancache import View, ViewDataset, open_loader
from bancache.loader import Batch, Loader, LoaderOptions
from bancache.loader.open import labels_loader
from bancache.losses import MixedLabels
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.views import ViewSpace
from bancache.views.model_input import Normalization
from bancache.views.space import Sizes

MIXED = ["crop1-flip-mixup0.8", "flip-cutmix1.0", "crop1-flip-mixup0.8-cutmix1.0"]
NORMALIZATION = Normalization((0.5,) * 3, (0.25,) * 3)


def loader_of(data: ImageSet, name: str, batch_size: int = 16, device: str = "cpu", seed: int = 3) -> Loader:
    options = LoaderOptions(batch_size, seed=seed)
    loader = labels_loader(data, ViewSpace.parse(name, seed=5), NORMALIZATION, 4, options)
    return Loader(loader._renderer, data.labels, 4, LoaderOptions(batch_size, seed=seed, device=device))


def mixed(batch: Batch | View) -> MixedLabels:
    assert isinstance(batch.labels, MixedLabels)
    return batch.labels


@pytest.fixture(scope="module")
def path(
    tmp_path_factory: pytest.TempPathFactory, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> Path:
    """A cache of four mixed views of 96 images."""
    path = tmp_path_factory.mktemp("cache") / "gen0.zarr"
    dump_tiny(teacher_path, spec, data, path, space=ViewSpace.parse(MIXED[-1], seed=5))
    return path


@pytest.mark.parametrize("name", MIXED)
def test_they_are_those_of_the_record(data: ImageSet, name: str) -> None:
    """The label of the sample and of its partner; λ is the blend's share, or what the cut leaves of the view."""
    space = ViewSpace.parse(name, seed=5)
    sizes = Sizes(np.full(96, 10), np.full(96, 10))
    cuts = blends = 0
    for epoch in range(4):
        for batch in loader_of(data, name).epoch(epoch):
            labels = mixed(batch)
            assert [part.dtype for part in labels] == [torch.int64, torch.int64, torch.float32]
            for row, record in enumerate(space.records(batch.samples, batch.views, sizes).tolist()):
                layout = space.layout
                _, _, height, width = record[layout.cut]
                seen = Fraction(record[layout.share], 256)
                if height:
                    seen = 1 - Fraction(height * width, 1 << 32)
                cuts, blends = cuts + bool(height), blends + (not height)
                assert labels.own[row] == data.labels[batch.samples[row]]
                assert labels.partner[row] == data.labels[record[layout.partner]]
                assert labels.lam[row].item() == np.float32(seen)
    assert bool(cuts) == ("cutmix" in name)
    assert bool(blends) == ("mixup" in name)


def test_views_that_are_not_mixed_have_one_label(data: ImageSet) -> None:
    assert isinstance(next(iter(loader_of(data, "crop1-flip"))).labels, torch.Tensor)


@pytest.mark.parametrize("name", MIXED)
def test_they_do_not_depend_on_batch_size_and_order(data: ImageSet, name: str) -> None:
    """A view and its labels are found by sample and view index alone."""
    data = ImageSet(data.images[:32], data.labels[:32], data.classes, data.name, data.split)
    rows: dict[tuple[int, int], list[torch.Tensor]] = {}
    for batch_size, seed in ((16, 3), (1, 3), (32, 4)):
        for epoch in (1, 2):
            for batch in loader_of(data, name, batch_size, seed=seed).epoch(epoch):
                for row, address in enumerate(zip(batch.samples.tolist(), batch.views.tolist(), strict=True)):
                    found = [batch.images[row], *(part[row] for part in mixed(batch))]
                    expected = rows.setdefault(address, found)
                    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert len(rows) == 2 * 32


@pytest.mark.parametrize("count", [2, 4])
def test_the_shares_of_several_processes_are_the_batch_of_one(path: Path, count: int) -> None:
    shares = [open_loader(path, batch_size=16, rank=rank, world_size=count) for rank in range(count)]
    for epoch in (0, 3):
        require_shares(open_loader(path, batch_size=16), shares, epoch)


def test_an_epoch_can_start_at_any_step(path: Path) -> None:
    whole, loader = open_loader(path, batch_size=16), open_loader(path, batch_size=16)
    for one, other in zip(loader.epoch(2, start=4), list(whole.epoch(2))[4:], strict=True):
        require_equal(one, other)


def test_they_appear_where_the_images_do(data: ImageSet) -> None:
    """The meta device stands for one whose memory does not hold the images."""
    batch = next(iter(loader_of(data, MIXED[0], device="meta")))
    assert {part.device.type for part in (batch.images, *mixed(batch))} == {"meta"}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_loader_collates_them(path: Path, workers: int) -> None:
    """One at a time, several at once, and as a DataLoader asks, they are those of bancache's loader."""
    dataset = ViewDataset(path)
    dataset.set_epoch(1)
    whole = dataset[list(range(96))]
    for batch in open_loader(path, batch_size=16).epoch(1):
        for part, all_of_them in zip(mixed(batch), mixed(whole), strict=True):
            assert torch.equal(part, all_of_them[batch.samples])
    for start, batch in enumerate(DataLoader(dataset, 32, num_workers=workers)):
        for part, all_of_them in zip(mixed(batch), mixed(whole), strict=True):
            assert torch.equal(part, all_of_them[32 * start : 32 * start + 32])
    for part, all_of_them in zip(mixed(dataset[7]), mixed(whole), strict=True):
        assert part.shape == ()
        assert part == all_of_them[7]
