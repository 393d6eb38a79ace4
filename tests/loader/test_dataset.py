"""A cache behind torch's own DataLoader gives the views and targets of the Loader."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts.loader import parts_of
from contracts.tiny import dump_tiny, images
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, RandomSampler, default_collate

from bancache import View, ViewDataset, open_loader
from bancache.cache.reader import Cache, EncodedView
from bancache.errors import MismatchError, UsageError
from bancache.loader.dataset import Keep
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec

Rows = dict[tuple[int, int], View]


@pytest.fixture(scope="module")
def path(
    tmp_path_factory: pytest.TempPathFactory, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> Path:
    """A cache of four views of 96 images."""
    path = tmp_path_factory.mktemp("cache") / "gen0.zarr"
    dump_tiny(teacher_path, spec, data, path)
    return path


@pytest.fixture(scope="module")
def expected(path: Path) -> list[Rows]:
    """The loader's epochs 0 to 5, by sample and view."""
    loader = open_loader(path, batch_size=16)
    epochs = []
    for epoch in range(6):
        rows = {}
        for pictures, labels, targets, samples, views in loader.epoch(epoch):
            addresses = torch.from_numpy(samples), torch.from_numpy(views)
            rows.update(by_address([View(pictures, labels, targets, *addresses)]))
        epochs.append(rows)
    return epochs


def by_address(batches: Iterable[View]) -> Rows:
    """Return each row of some batches by its sample and view."""
    rows = [View(*row) for batch in batches for row in zip(*batch, strict=True)]
    found = {(int(row.samples), int(row.views)): row for row in rows}
    assert len(found) == len(rows)
    return found


def same(found: Rows, wanted: Rows) -> bool:
    """Whether two hold the same addresses with the same bits."""
    return found.keys() == wanted.keys() and all(
        torch.equal(one, other)
        for address, row in found.items()
        for one, other in zip(flat(row), flat(wanted[address]), strict=True)
    )


def flat(view: View) -> list[torch.Tensor]:
    """Return its tensors; both labels and their share count one by one."""
    return [view.images, *parts_of(view.labels), view.targets, view.samples, view.views]


def test_its_views_are_the_loaders_bit_for_bit(path: Path, expected: list[Rows]) -> None:
    """One at a time, several at once, and as a DataLoader asks; epochs 4 and 5 show the views of 0 and 1."""
    dataset = ViewDataset(path)
    assert (len(dataset), dataset.classes, dataset.num_views) == (96, 3, 4)
    for epoch in (0, 3, 1, 5):
        dataset.set_epoch(epoch)
        one_by_one = [default_collate([dataset[i]]) for i in range(96)]
        for batches in (one_by_one, [dataset[list(range(96))]], DataLoader(dataset, 20, shuffle=True)):
            assert same(by_address(batches), expected[epoch])
    view = dataset[7]
    assert isinstance(view.labels, torch.Tensor)
    assert view.images.shape == (3, 10, 10)
    assert view.labels.shape == view.samples.shape == ()
    assert view.targets.shape == (3,)
    assert view.samples == 7


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_show_the_epoch_that_was_set(path: Path, expected: list[Rows], persistent: bool) -> None:
    """Also workers that stay, and also after the parent itself has read from the store."""
    dataset = ViewDataset(path)
    assert dataset[0].samples == 0
    batches = DataLoader(dataset, 16, num_workers=2, shuffle=True, persistent_workers=persistent)
    for epoch in (0, 1, 2, 5):
        dataset.set_epoch(epoch)
        assert same(by_address(batches), expected[epoch])


def test_another_word_than_those_of_keep_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="views"):
        ViewDataset(path, keep="views")  # type: ignore[arg-type]


def test_spawned_workers_open_the_store_again(path: Path, expected: list[Rows]) -> None:
    dataset = ViewDataset(path)
    batches = DataLoader(
        dataset,
        32,
        num_workers=1,
        multiprocessing_context=multiprocessing.get_context("spawn"),
        persistent_workers=True,
    )
    for epoch in (0, 2):
        dataset.set_epoch(epoch)
        assert same(by_address(batches), expected[epoch])


def test_whole_batches_come_from_a_batch_sampler(path: Path, expected: list[Rows]) -> None:
    """The way of torch's documentation to load batches: each is rendered at once and copied no more."""
    dataset = ViewDataset(path)
    sampler = BatchSampler(RandomSampler(dataset), batch_size=32, drop_last=True)
    for batches in (DataLoader(dataset, sampler=sampler, batch_size=None, num_workers=w) for w in (0, 1)):
        found = list(batches)
        assert [len(batch.labels) for batch in found] == [32, 32, 32]
        assert same(by_address(found), expected[0])


def test_ranks_share_an_epoch(path: Path, expected: list[Rows]) -> None:
    dataset = ViewDataset(path)
    dataset.set_epoch(1)
    parts = []
    for rank in range(3):
        sampler: DistributedSampler[View] = DistributedSampler(dataset, num_replicas=3, rank=rank, seed=4)
        sampler.set_epoch(1)
        parts.append(by_address(DataLoader(dataset, 8, sampler=sampler)))
    assert [len(part) for part in parts] == [32, 32, 32]
    assert same(parts[0] | parts[1] | parts[2], expected[1])


def test_a_path_may_be_text(path: Path) -> None:
    assert torch.equal(ViewDataset(str(path))[3].images, ViewDataset(path)[3].images)


def test_an_epoch_reads_one_view_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For any samples in any order; where all views are kept, each is read once."""
    read: list[int] = []
    encoded = Cache.read_view

    def spy(self: Cache, view_index: int) -> EncodedView:
        read.append(view_index)
        return encoded(self, view_index)

    monkeypatch.setattr(Cache, "read_view", spy)
    kept: tuple[tuple[Keep, list[int]], ...] = (("view", [0, 1, 0, 1]), ("all", [0, 1]))
    for keep, expected in kept:
        dataset = ViewDataset(path, keep=keep)
        assert read == []
        for epoch in (0, 1, 4, 5):
            dataset.set_epoch(epoch)
            for sample in (95, 3, 40):
                assert dataset[sample].samples == sample
        assert read == expected
        read.clear()


def test_other_data_and_other_temperatures_are_refused(
    tmp_path: Path, path: Path, spec: DataSpec, data: ImageSet
) -> None:
    import numpy as np

    other = images(seed=3, count=96)
    fields: dict[str, Any] = {"train_images": other.images, "train_labels": other.labels}
    fields |= {"test_images": other.images, "test_labels": other.labels, "classes": np.array(other.classes)}
    np.savez(tmp_path / "other.npz", **fields)
    with pytest.raises(MismatchError, match="data set"):
        ViewDataset(path, data=f"npz:{tmp_path / 'other.npz'}")
    with pytest.raises(UsageError, match=r" 1.* 4"):
        ViewDataset(path, temperature=4.0)
    with pytest.raises(UsageError, match="-1"):
        ViewDataset(path).set_epoch(-1)


def test_it_ends_where_its_samples_end(path: Path) -> None:
    dataset = ViewDataset(path)
    last = 0
    for last, view in enumerate(dataset):  # type: ignore[arg-type, var-annotated]
        assert view.samples == last
    assert last == 95
    for index in (96, -97, [3, 96]):
        with pytest.raises(IndexError, match="95"):
            dataset[index]
    mask = torch.arange(96) % 2 == 0
    for wrong in (mask, mask.numpy(), mask.tolist(), [1.5]):
        with pytest.raises(IndexError, match="nonzero"):
            dataset[wrong]  # type: ignore[index]
    assert torch.equal(dataset[mask.nonzero()[:, 0]].samples, torch.arange(0, 96, 2))
    assert len(dataset[[]].samples) == 0
