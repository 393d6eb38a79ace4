"""Audit a cache: run the teacher again on a random sample of pairs, and compare its logits with the stored targets.

Digests cannot tell whether the stored targets are the teacher's. An honest cache loses as much as its encoding does,
within the teacher's own noise; targets of another view, sample or teacher lose more. So three KL divergences from the
new logits are measured for each pair, at temperature 1: of the stored targets, of the new logits once encoded, and of
the teacher's logits in other batches.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.cache.layout import Layout
from bancache.cache.reader import Cache, open_cache
from bancache.dumping.forward import pair_logits
from bancache.dumping.recompute import require_same_inputs, settings_of
from bancache.dumping.teacher_input import input_renderer_of_some
from bancache.encodings import from_config
from bancache.encodings.fidelity import divergence
from bancache.errors import UsageError
from bancache.models.teacher import Teacher
from bancache.philox import permutation
from bancache.sources.image_set import ImageSet
from bancache.system.progress import Progress, Silent

Verdict = Literal["verified", "within quantization error", "mismatch"]

_DOMAIN = 0x5AFE_0005

# A divergence grows with the square of the difference, so tolerances are on its square root. Rounding the other way
# may double a pair's error; other batches may differ more than the two that were compared; 1e-5 is the root of the
# rounding error of a divergence in float32.
_ENCODING_SLACK, _TEACHER_SLACK, _FLOOR = 2.0, 4.0, 1e-5
# On the mean: a tenth of the recorded mean, and four standard errors.
_MEAN_SLACK, _STANDARD_ERRORS = 0.1, 4.0
_EXAMPLES = 8


@dataclass(frozen=True)
class Audit:
    """The outcome of an audit; divergences are the ``mean`` and ``max`` in nats over its (sample, view) pairs.

    ``verified``: no difference beyond the teacher's own noise. ``within quantization error``: no difference beyond
    what the encoding loses. ``mismatch``: a larger difference, in ``mismatches`` single pairs or in the mean.
    ``recorded`` is the quantization error at dump time, if the summary has one. ``same_bytes`` is the fraction of
    pairs whose stored bytes equal the newly encoded ones.
    """

    verdict: Verdict
    num_pairs: int
    shards: int
    stored: dict[str, float]
    encoding: dict[str, float]
    teacher: dict[str, float]
    recorded: dict[str, float] | None
    same_bytes: float
    mismatches: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class _Pairs:
    """Pairs to compare: samples int64 (P,), view indices int64 (P,), and their stored fields."""

    samples: NDArray[np.int64]
    view_indices: NDArray[np.int64]
    stored: dict[str, NDArray[Any]]
    shards: int


def audit(
    path: str | os.PathLike[str],
    teacher: Teacher,
    data: ImageSet,
    *,
    device: torch.device,
    num_pairs: int = 1024,
    seed: int = 0,
    progress: Progress | None = None,
) -> Audit:
    """Compare stored targets with new forward passes of the teacher, on pairs spread evenly over the shards.

    About ``num_pairs`` are compared, at least two from each shard that is sampled.

    Raises:
        CacheDamagedError: A shard is damaged, or the cache is incomplete.
        MismatchError: The teacher, data set or rendering is not that of the cache.
    """
    if num_pairs < 2:
        raise UsageError(f"an audit needs more than {num_pairs} pairs", hint="use --num-pairs 2 or more")
    progress = progress or Silent()
    cache = open_cache(path)
    require_same_inputs(cache, teacher, data)
    pairs = _sample(cache, num_pairs, seed, progress)
    settings, size = settings_of(cache.manifest), cache.manifest.compute["batch_size"]
    # A view id depends on the sample's number in the whole data set, not in the renderer.
    renderer, rows = input_renderer_of_some(teacher, data.images, pairs.samples, settings, device)
    view_ids = settings.space.view_ids(pairs.samples, pairs.view_indices)

    def run(order: NDArray[np.int64], batch_size: int) -> torch.Tensor:
        with progress.stage("teacher", total=len(order), unit="images") as stage:
            return pair_logits(teacher, renderer, rows[order], view_ids[order], batch_size, stage.advance)

    logits = run(np.arange(len(rows)), size)
    # Other neighbours, positions and batch sizes show how much the machine's rounding depends on them.
    order = permutation(seed, 1, len(rows), domain=_DOMAIN)
    repeated = torch.empty_like(logits)
    repeated[order] = run(order, size // 2 + 1)
    return _judge(cache, pairs, logits, repeated)


def _sample(cache: Cache, num_pairs: int, seed: int, progress: Progress) -> _Pairs:
    layout = Layout(cache.manifest)
    number = min(layout.count, max(1, num_pairs // 2))
    indices = np.sort(permutation(seed, 0, layout.count, domain=_DOMAIN)[:number]).tolist()
    share = -(-num_pairs // number)
    samples, view_indices, parts = [], [], []
    with progress.stage("read", total=number, unit="shards") as stage:
        for shard in map(layout.shard, indices):
            rows = permutation(seed, shard.index + 2, shard.stop - shard.start, domain=_DOMAIN)[:share]
            encoded = cache.shard(shard)
            parts.append({name: values[rows] for name, values in encoded.items()})
            samples.append(rows + shard.start)
            view_indices.append(np.full(len(rows), shard.view_index))
            stage.advance(1)
    stored = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _Pairs(np.concatenate(samples), np.concatenate(view_indices), stored, number)


def _judge(cache: Cache, pairs: _Pairs, logits: torch.Tensor, repeated: torch.Tensor) -> Audit:
    manifest = cache.manifest
    encoding = from_config(manifest.encoding, manifest.classes, manifest.fields)
    fields = {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in pairs.stored.items()}
    fresh = encoding.encode(logits)
    stored = divergence(logits, encoding.probabilities(fields, 1.0), 1.0)
    lost = divergence(logits, encoding.probabilities(fresh, 1.0), 1.0)
    noise = divergence(logits, torch.softmax(repeated.double(), dim=1), 1.0)
    recorded = (cache.summary.get("fidelity") or {}).get("1")
    if recorded is not None:
        recorded = {"mean": recorded["kl_mean"], "max": recorded["kl_max"]}
    slack = _TEACHER_SLACK * float(noise.max()) ** 0.5 + _FLOOR
    # A NaN fails every comparison, so the test is "not within", not "beyond".
    wrong = torch.nonzero(~(stored.sqrt() <= _ENCODING_SLACK * lost.sqrt() + slack))[:, 0].tolist()
    return Audit(
        verdict="mismatch" if wrong else _verdict(stored, lost, slack, recorded),
        num_pairs=len(logits),
        shards=pairs.shards,
        stored=_mean_and_max(stored),
        encoding=_mean_and_max(lost),
        teacher=_mean_and_max(noise),
        recorded=recorded,
        same_bytes=_same_bytes(fields, fresh),
        mismatches=len(wrong),
        examples=tuple(
            f"view {pairs.view_indices[i]}, sample {pairs.samples[i]}: {float(stored[i]):.1e} nats"
            for i in wrong[:_EXAMPLES]
        ),
    )


def _verdict(
    stored: torch.Tensor, lost: torch.Tensor, slack: float, recorded: dict[str, float] | None
) -> Verdict:
    """Judge pairs that are each within tolerance: by their mean, and by the figures recorded at dump time."""
    excess = stored - lost
    error = float(excess.std(correction=0)) / len(excess) ** 0.5
    mean = recorded["mean"] if recorded else float(lost.mean())
    allowed = max(_MEAN_SLACK * mean, slack**2) + _STANDARD_ERRORS * error
    largest = (recorded["max"] ** 0.5 + slack) ** 2 if recorded else float("inf")
    if float(excess.mean()) > allowed or float(stored.max()) > largest:
        return "mismatch"
    return "verified" if float(stored.max()) <= slack**2 else "within quantization error"


def _same_bytes(fields: Mapping[str, torch.Tensor], fresh: Mapping[str, torch.Tensor]) -> float:
    same = [(part == fresh[name]).reshape(len(part), -1).all(dim=1) for name, part in fields.items()]
    return float(torch.stack(same).all(dim=0).double().mean())


def _mean_and_max(values: torch.Tensor) -> dict[str, float]:
    return {"mean": float(values.mean()), "max": float(values.max())}
