"""Targets may be changed when they are read, so that a study can tell what of a teacher's rows a student uses."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.calling import refuse, succeed
from contracts.replaying import pretend_to_capture
from contracts.stopping import StopAfter
from contracts.tiny import CPU, RECIPE, architecture, dump_tiny
from torch.utils.data import DataLoader

import bancache as bc
from bancache import losses
from bancache.cache.reader import Cache
from bancache.errors import StoppedError, UsageError
from bancache.loader.changed_targets import flatten_rest, partners, smooth
from bancache.losses.device_keys import device_permutation_keys
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training import Recipe, Run, TrainerOptions, run_for_cache, train
from bancache.training.build import make_loader
from bancache.training.step import decodes_itself

ALL = ("smooth0.1", "max-uniform", "permute-rest", "shuffle-in-class", "class-mean")
SHORT = replace(RECIPE, epochs=3)
Rows = dict[tuple[int, int], torch.Tensor]


@pytest.fixture(scope="module")
def cache(
    tmp_path_factory: pytest.TempPathFactory, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> Cache:
    path = tmp_path_factory.mktemp("cache") / "gen0.zarr"
    return dump_tiny(teacher_path, spec, data, path, num_views=2)[0].cache


def rows_of(cache: Cache, epochs: int = 2, **options: Any) -> Rows:
    """Return the targets of each sample and epoch."""
    return {
        (int(sample), epoch): row
        for epoch in range(epochs)
        for batch in bc.open_loader(cache.path, **options).epoch(epoch)
        for sample, row in zip(batch.samples, batch.targets, strict=True)  # type: ignore[arg-type]
    }


def same(one: Rows, other: Rows) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_smoothing_gives_the_label_all_but_a_share_that_all_classes_get() -> None:
    found = smooth(torch.tensor([2, 0]), 4, 0.1)
    torch.testing.assert_close(
        found, torch.tensor([[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]])
    )


def test_a_uniform_rest_keeps_the_largest_probability_and_its_class() -> None:
    rows = torch.tensor([[0.1, 0.6, 0.3, 0.0], [0.4, 0.1, 0.1, 0.4]])
    found = flatten_rest(rows)
    torch.testing.assert_close(found, torch.tensor([[0.4 / 3, 0.6, 0.4 / 3, 0.4 / 3], [0.4, 0.2, 0.2, 0.2]]))


def test_keys_on_a_device_are_those_of_the_host() -> None:
    samples = np.array([0, 7, 49_999, (1 << 31) - 1])
    for seed, epoch in ((0, 0), (3, 5), ((1 << 63) - 1, 199)):
        found = device_permutation_keys(seed, torch.tensor(epoch), torch.from_numpy(samples), 100)
        assert torch.equal(found, torch.from_numpy(losses.permutation_keys(seed, epoch, samples, 100)))


def test_within_a_class_every_sample_takes_the_row_of_another_and_each_row_is_taken_once() -> None:
    labels = np.array([0, 1, 0, 1, 0, 2, 1, 0, 1])
    found = partners(labels, 0, 0)
    assert found.tolist() == [2, 8, 4, 1, 7, 5, 3, 0, 6]
    drawn = {tuple(partners(labels, view, seed)) for view in range(4) for seed in range(4)}
    assert len(drawn) > 10
    for one in map(np.array, drawn):
        assert sorted(one) == list(range(9))
        assert (labels[one] == labels).all()
        assert np.flatnonzero(one == np.arange(9)).tolist() == [5]  # the only sample of its class


def test_each_change_does_what_it_says_to_the_rows_of_a_cache(cache: Cache, data: ImageSet) -> None:
    plain, labels = rows_of(cache), data.labels
    found = {change: rows_of(cache, targets=change) for change in ALL}
    for (sample, epoch), row in plain.items():
        label, best, key = int(labels[sample]), int(row.argmax()), (sample, epoch)
        assert found["smooth0.1"][key][label] == pytest.approx(1 - 0.1 + 0.1 / 3)
        uniform, permuted = found["max-uniform"][key], found["permute-rest"][key]
        assert uniform[best] == permuted[best] == row[best]
        assert sorted(permuted.tolist()) == sorted(row.tolist())
        assert float(uniform.sum()) == pytest.approx(1)
        others = [plain[other, epoch] for other in range(96) if labels[other] == label and other != sample]
        assert any(torch.equal(found["shuffle-in-class"][key], other) for other in others)
        mean = torch.stack([row, *others]).mean(0)
        torch.testing.assert_close(found["class-mean"][key], mean, rtol=0, atol=1e-6)
    for epoch in range(2):  # each row once
        rows = Counter(tuple(plain[sample, epoch].tolist()) for sample in range(96))
        assert rows == Counter(tuple(found["shuffle-in-class"][s, epoch].tolist()) for s in range(96))
    moved = [key for key, row in plain.items() if not torch.equal(found["permute-rest"][key], row)]
    assert 50 < len(moved) < 150  # the two others of three classes change places half of the time


@pytest.mark.parametrize("change", ALL)
def test_a_changed_row_depends_on_cache_seed_sample_and_view_alone(cache: Cache, change: str) -> None:
    """Not on the batch, the order, the number of processes or the way it is read."""
    expected = rows_of(cache, targets=change, seed=3, batch_size=96)
    assert same(rows_of(cache, targets=change, seed=3, batch_size=8), expected)
    shares = [rows_of(cache, targets=change, seed=3, batch_size=48, rank=r, world_size=3) for r in range(3)]
    assert same(shares[0] | shares[1] | shares[2], expected)
    loader = bc.open_loader(cache.path, targets=change, seed=3, batch_size=32)
    for epoch in (3, 1, 0):  # view indices 1, 1, 0
        for batch in loader.epoch(epoch, start=1):
            assert batch.targets is not None
            for sample, row in zip(batch.samples, batch.targets, strict=True):
                assert torch.equal(row, expected[int(sample), epoch % 2])
    dataset = bc.ViewDataset(cache.path, targets=change, seed=3)
    dataset.set_epoch(1)
    for view in DataLoader(dataset, 10, shuffle=True):
        for sample, row in zip(view.samples, view.targets, strict=True):
            assert torch.equal(row, expected[int(sample), 1])
    assert same(rows_of(cache, targets=change, seed=4), expected) == (
        change in ("smooth0.1", "max-uniform", "class-mean")
    )


def student(cache: Cache, spec: DataSpec, data: ImageSet, recipe: Recipe) -> Run:
    return run_for_cache(architecture(), recipe, 1, spec, data, cache)


@pytest.fixture(scope="module")
def unchanged(
    tmp_path_factory: pytest.TempPathFactory, spec: DataSpec, data: ImageSet, held_out: ImageSet, cache: Cache
) -> str:
    """The fingerprint of a student whose targets are not changed."""
    options = TrainerOptions(tmp_path_factory.mktemp("unchanged") / "a.pt", CPU)
    return train(
        student(cache, spec, data, SHORT), data, held_out, options, cache=cache
    ).checkpoint.fingerprint


@pytest.mark.parametrize("change", ALL)
def test_a_run_goes_on_and_is_replayed_to_the_same_bits(
    tmp_path: Path,
    spec: DataSpec,
    data: ImageSet,
    held_out: ImageSet,
    cache: Cache,
    unchanged: str,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    run = student(cache, spec, data, replace(SHORT, targets=change))
    splits = data, held_out
    whole = train(run, *splits, TrainerOptions(tmp_path / "a.pt", CPU), cache=cache).checkpoint
    assert whole.fingerprint != unchanged
    replays = pretend_to_capture(monkeypatch)
    options = TrainerOptions(tmp_path / "c.pt", CPU)
    for steps in (3, 8):
        with pytest.raises(StoppedError):
            train(run, *splits, options, cache=cache, interrupt=StopAfter(steps))
    again = train(run, *splits, options, cache=cache).checkpoint
    assert len(replays) == 3
    assert (again.fingerprint, again.header["history"]) == (whole.fingerprint, whole.header["history"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize("change", ALL)
def test_on_a_gpu_a_graph_with_changed_targets_ends_with_the_bits_of_the_eager_loop(
    tmp_path: Path,
    spec: DataSpec,
    data: ImageSet,
    held_out: ImageSet,
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    run = student(cache, spec, data, replace(SHORT, targets=change))
    found = [
        train(
            run,
            data,
            held_out,
            TrainerOptions(tmp_path / f"{graph}.pt", torch.device("cuda"), graph=graph),
            cache=cache,
        )
        for graph in ("off", "on")
    ]
    assert found[0].checkpoint.fingerprint == found[1].checkpoint.fingerprint


def test_changed_rows_are_decoded_before_the_loss(
    cache: Cache, spec: DataSpec, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the loss would decode plain ones in its own kernel."""
    monkeypatch.setattr("bancache.training.step.kernel_serves", lambda logits: True)
    for change, coded in (("none", True), ("max-uniform", False)):
        run = student(cache, spec, data, replace(SHORT, targets=change))
        assert decodes_itself(run, CPU, 3)
        batch = next(iter(make_loader(run, data, TrainerOptions("a.pt", CPU), cache=cache)))
        assert (batch.codes is not None) == coded
        assert (batch.targets is None) == coded


def test_a_loss_that_is_scaled_is_a_learning_rate_that_is_scaled(
    tmp_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet, cache: Cache
) -> None:
    """Without weight decay, and to the last bit for a power of two; the logged losses are halves."""
    plain = replace(SHORT, weight_decay=0.0)
    found = {}
    for name, recipe in (
        ("a", plain),
        ("b", replace(plain, loss_scale=0.5, lr=2 * plain.lr)),
        ("c", replace(plain, loss="dkpp")),
        ("d", replace(plain, loss="dkpp", loss_scale=0.5, lr=2 * plain.lr)),
    ):
        options = TrainerOptions(tmp_path / f"{name}.pt", CPU)
        found[name] = train(
            student(cache, spec, data, recipe), data, held_out, options, cache=cache
        ).checkpoint
    for one, other in (("a", "b"), ("c", "d")):
        assert found[one].fingerprint == found[other].fingerprint
        halves = [entry["loss"] / 2 for entry in found[one].header["history"]]
        assert [entry["loss"] for entry in found[other].header["history"]] == halves


def test_a_recipe_says_what_was_changed_and_nothing_if_nothing_was(tmp_path: Path, cache: Cache) -> None:
    """So older versions read the files of runs that need none of it; a teacher's recipe can be taken back."""
    short = ("--epochs", "1", "--batch-size", "32")
    out = ("train-student", "--cache", cache.path, *short, "--out")
    succeed(*out, tmp_path / "plain.pt")
    assert not {"targets", "loss_scale"} & set(bc.load_checkpoint(tmp_path / "plain.pt").header["recipe"])
    changed = (*out, tmp_path / "gen1.pt", "--targets", "class-mean", "--loss-scale", "0.5")
    succeed(*changed)
    assert succeed(*changed)["loss"] == "ban-l class-mean x0.5"  # a table keeps it apart from plain ban-l
    recipe = bc.load_checkpoint(tmp_path / "gen1.pt").header["recipe"]
    assert (recipe["targets"], recipe["loss_scale"]) == ("class-mean", 0.5)
    assert succeed(*changed)["trained"] is False
    assert succeed(*out, tmp_path / "plain.pt", "--targets", "none")["trained"] is False
    refuse(4, ("class-mean", "max-uniform"), *out, tmp_path / "gen1.pt", "--targets", "max-uniform")
    refuse(4, ("class-mean",), *out, tmp_path / "gen1.pt", "--targets", "none", "--loss-scale", "0.5")
    succeed("dump", "--teacher", tmp_path / "gen1.pt", "--num-views", "2")
    second = ("train-student", "--cache", tmp_path / "gen1.zarr", *short)
    succeed(*second, "--out", tmp_path / "a.pt")
    assert bc.load_checkpoint(tmp_path / "a.pt").header["recipe"]["targets"] == "class-mean"
    succeed(*second, "--out", tmp_path / "b.pt", "--targets", "none", "--loss-scale", "1")
    assert not {"targets", "loss_scale"} & set(bc.load_checkpoint(tmp_path / "b.pt").header["recipe"])


@pytest.mark.parametrize(
    ("options", "values", "hint"),
    [
        (("--targets", "class-means"), "class-means", "class-mean"),
        (("--targets", "smooth1.5"), r"smooth1\.5", "smooth0.05"),
        (("--loss-scale", "0"), r"0\.0", "--loss-scale"),
        (("--loss-scale", "nan"), "nan", "--loss-scale"),
    ],
)
def test_a_change_that_is_none_is_refused_at_once(
    tmp_path: Path, cache: Cache, options: tuple[str, ...], values: str, hint: str
) -> None:
    refuse(2, values, "train-student", "--cache", cache.path, "--out", tmp_path / "a.pt", *options, hint=hint)


def test_views_with_two_labels_take_only_changes_that_need_none(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    from bancache.views import ViewSpace

    mixed = dump_tiny(
        teacher_path,
        spec,
        data,
        tmp_path / "mixed.zarr",
        space=ViewSpace.parse("rrc-flip-mixup0.8"),
        num_views=1,
    )[0].cache
    for change in ALL:
        if change in ("max-uniform", "permute-rest"):
            assert next(iter(bc.open_loader(mixed.path, targets=change))).targets is not None
        else:
            with pytest.raises(UsageError) as caught:
                bc.open_loader(mixed.path, targets=change)
            assert "--targets max-uniform" in caught.value.hint
