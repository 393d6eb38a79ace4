"""An audit tells honest caches from forged ones whose every digest holds."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.calling import call, refuse, succeed
from contracts.forging import EncodedViews, forge
from contracts.tiny import CPU, FEW, dump_tiny, settings

from bancache.cache.layout import Layout
from bancache.cache.reader import open_cache
from bancache.dumping import dump
from bancache.dumping.audit import audit
from bancache.dumping.forward import pair_logits
from bancache.encodings import parse_encoding
from bancache.encodings.fidelity import divergence
from bancache.errors import MismatchError, UsageError
from bancache.models.checkpoint import load_checkpoint, save_checkpoint
from bancache.models.teacher import Teacher, load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec

ENCODINGS = ("root2-64", "float32", "root4", "topk-2", "int8")


@pytest.fixture(scope="module")
def honest(dumped: Path, teacher_path: Path, spec: DataSpec, data: ImageSet) -> Path:
    """A folder with an honest cache of each encoding, in three shards a view index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bancache.cache.layout._SHARD_BYTES", 400)
        for name in ENCODINGS:
            dump_tiny(teacher_path, spec, data, dumped / f"{name}.zarr", num_views=FEW, encoding=name)
    return dumped


@pytest.fixture(autouse=True)
def _shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bancache.cache.layout._SHARD_BYTES", 400)


def swapped(encoded_views: EncodedViews) -> EncodedViews:
    return [encoded_views[1], encoded_views[0], *encoded_views[2:]]


def shifted(encoded_views: EncodedViews) -> EncodedViews:
    return [
        {name: np.roll(values, 1, axis=0) for name, values in encoded.items()} for encoded in encoded_views
    ]


def one_shard_of_another_view(encoded_views: EncodedViews) -> EncodedViews:
    for name, values in encoded_views[2].items():
        values[:32] = encoded_views[0][name][:32]
    return encoded_views


def one_label_for_all(encoded_views: EncodedViews) -> EncodedViews:
    """As a teacher would that has collapsed: every row is the first one."""
    return [
        {name: np.repeat(values[:1], len(values), axis=0) for name, values in s.items()}
        for s in encoded_views
    ]


@pytest.mark.parametrize(
    ("encoding", "verdict"),
    [
        ("float32", "verified"),
        ("root2-64", "within quantization error"),
        ("root4", "within quantization error"),
        ("topk-2", "within quantization error"),
        ("int8", "within quantization error"),
    ],
)
def test_an_honest_cache_passes(
    honest: Path, teacher: Teacher, data: ImageSet, encoding: str, verdict: str
) -> None:
    found = audit(honest / f"{encoding}.zarr", teacher, data, device=CPU, num_pairs=128)
    assert (found.verdict, found.mismatches, found.examples) == (verdict, 0, ())
    assert found.num_pairs >= 128
    assert found.recorded is not None
    assert found.stored["max"] <= found.recorded["max"] * 1.001 + 1e-12
    assert found.teacher["max"] < 1e-10
    if encoding.startswith("root"):
        assert found.same_bytes > 0.99


@pytest.mark.parametrize("change", [swapped, shifted, one_shard_of_another_view, one_label_for_all])
@pytest.mark.parametrize("encoding", ["root2-64", "float32"])
def test_targets_of_other_views_or_samples_are_found(
    honest: Path,
    memory: Path,
    teacher: Teacher,
    data: ImageSet,
    encoding: str,
    change: Callable[[EncodedViews], EncodedViews],
) -> None:
    path = forge(honest / f"{encoding}.zarr", memory / "forged.zarr", change)
    found = audit(path, teacher, data, device=CPU, num_pairs=128)
    assert found.verdict == "mismatch"
    assert found.mismatches > 0
    assert found.examples[0].startswith("view ")
    assert found.stored["max"] > 10 * found.encoding["max"]
    if change is one_shard_of_another_view:
        assert {name[:6] for name in found.examples} == {"view 2"}


@pytest.mark.parametrize(("encoding", "by"), [("float32", 1e-4), ("root4", 1e-2), ("root2-64", 3e-2)])
def test_a_teacher_that_was_changed_a_little_is_found(
    memory: Path, teacher: Teacher, spec: DataSpec, data: ImageSet, encoding: str, by: float
) -> None:
    """Its weights were scaled by a little after their fingerprint was taken; every target is a little wrong."""
    net = copy.deepcopy(teacher.model)
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(1 + by)
    liar = replace(teacher, model=net)
    asked = settings(teacher, encoding=encoding, num_views=FEW)
    dump(liar, data, spec, memory / "a.zarr", asked, device=CPU)
    found = audit(memory / "a.zarr", teacher, data, device=CPU, num_pairs=256)
    assert found.verdict == "mismatch"
    assert found.recorded is not None
    assert found.stored["mean"] > 1.1 * found.recorded["mean"]


def test_targets_that_are_each_near_enough_and_too_far_on_average_are_found(
    honest: Path, memory: Path, teacher: Teacher, data: ImageSet
) -> None:
    """One code of each row is moved by a step, if the row stays within tolerance and below the recorded maximum."""
    exact, coarse = open_cache(honest / "float32.zarr"), parse_encoding("root2-64", 3)
    most = open_cache(honest / "root2-64.zarr").summary["fidelity"]["1"]["kl_max"]

    def worsened(encoded_views: EncodedViews) -> EncodedViews:
        for view_index, encoded in enumerate(encoded_views):
            logits = torch.from_numpy(exact.read_view(view_index)["logits"])
            q, best = torch.from_numpy(encoded["q"]), torch.zeros(len(logits), dtype=torch.float64)
            lost = divergence(logits, coarse.probabilities({"q": q}, 1.0), 1.0)
            chosen = q.clone()
            for column, step in itertools.product(range(3), (-1, 1)):
                moved = q.to(torch.int16)
                moved[:, column] += step
                found = divergence(logits, coarse.probabilities({"q": moved}, 1.0), 1.0)
                fits = (moved.amax(dim=1) == 63) & (moved.amin(dim=1) >= 0) & (found < 3 * lost)
                better = fits & (found < 0.9 * most) & (found > best)
                best = torch.where(better, found, best)
                chosen = torch.where(better[:, None], moved.to(torch.uint8), chosen)
            encoded["q"][:] = chosen.numpy()
        return encoded_views

    path = forge(honest / "root2-64.zarr", memory / "forged.zarr", worsened)
    found = audit(path, teacher, data, device=CPU, num_pairs=256)
    assert found.recorded is not None
    assert found.stored["max"] <= found.recorded["max"] * 1.001
    assert (found.verdict, found.mismatches) == ("mismatch", 0)


def test_the_teachers_own_noise_is_that_of_batches_of_another_size(
    honest: Path, teacher: Teacher, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counting(*given: Any) -> torch.Tensor:
        sizes.append(given[4])
        return pair_logits(*given)

    monkeypatch.setattr("bancache.dumping.audit.pair_logits", counting)
    audit(honest / "root4.zarr", teacher, data, device=CPU, num_pairs=64)
    assert sizes == [32, 17]


def test_the_sample_is_spread_over_shards_and_is_that_of_its_seed(
    honest: Path, teacher: Teacher, data: ImageSet
) -> None:
    path = honest / "root2-64.zarr"
    shards = Layout(open_cache(path).manifest).count
    first, same, other = (
        audit(path, teacher, data, device=CPU, num_pairs=27, seed=seed) for seed in (0, 0, 1)
    )
    assert first == same
    assert first.stored != other.stored
    assert (first.shards, first.num_pairs) == (shards, 27)
    assert audit(path, teacher, data, device=CPU, num_pairs=2).shards == 1
    with pytest.raises(UsageError, match=r"\b1\b"):
        audit(path, teacher, data, device=CPU, num_pairs=1)


def test_another_teacher_or_other_images_are_refused(
    honest: Path, memory: Path, teacher: Teacher, teacher_path: Path, data: ImageSet
) -> None:
    stored = load_checkpoint(teacher_path)
    state = {k: v * 1.01 if v.is_floating_point() else v for k, v in stored.state.items()}
    save_checkpoint(memory / "other.pt", state, stored.header)
    with pytest.raises(MismatchError, match=teacher.fingerprint[:12]):
        audit(honest / "float32.zarr", load_teacher(str(memory / "other.pt"), device=CPU), data, device=CPU)
    with pytest.raises(MismatchError, match=data.fingerprint[:12]):
        audit(honest / "float32.zarr", teacher, data.first(90), device=CPU)
    hint = refuse(
        4,
        rf".*{teacher.fingerprint[:12]}.*",
        *("verify", honest / "float32.zarr", "--teacher", memory / "other.pt", "-q"),
    )
    assert "--teacher" in hint


def test_the_command_tells_the_three_verdicts_apart(honest: Path, memory: Path, teacher_path: Path) -> None:
    argv = ("--teacher", teacher_path, "--num-pairs", "64", "-q")
    assert "verified: " in call("verify", honest / "float32.zarr", *argv).out
    said = succeed("verify", honest / "root2-64.zarr", *argv)
    assert (said["intact"], said["audit"]["verdict"]) == (True, "within quantization error")
    path = forge(honest / "root2-64.zarr", memory / "forged.zarr", swapped)
    told = call("verify", path, *argv)
    assert told.code == 3
    assert told.out.count("mean ") == 4
    assert "view " in told.out
    assert "mismatch" in told.err
    assert call("verify", path, *argv, "--json").json["audit"]["verdict"] == "mismatch"
