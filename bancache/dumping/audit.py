"""Is what a cache holds what its teacher says? Digests cannot tell: here a sample of entries is asked for again.

Three divergences are measured on each sampled entry, in nats at temperature 1, from what the teacher says now:

    stored     to what the cache holds
    encoding   to the same answer, encoded now: what the encoding loses on this very entry
    teacher    to the teacher's own answer in other batches: what it loses on itself

An honest cache loses what the encoding loses, give or take the teacher's own noise; a row that belongs to another
view, sample or teacher loses more, by how far those answers differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.cache.layout import Layout
from bancache.cache.reader import Cache, open_cache
from bancache.dumping.recompute import require_same_question, settings_of
from bancache.encodings import Encoding, from_config
from bancache.encodings.fidelity import divergence
from bancache.errors import UsageError
from bancache.models.teacher import Teacher
from bancache.philox import permutation
from bancache.sources.base import ImageSet
from bancache.system.progress import Progress, Silent
from bancache.views.renderer import Renderer

_DOMAIN = 0x5AFE_0005

# Divergences grow with the square of what differs, so tolerances are of their roots. A rounding that falls the other
# way may double an entry's error; other batches than the two that were tried may differ more than these; and 1e-5
# is the root of what float32 arithmetic leaves of nothing.
_ENCODING_SLACK, _TEACHER_SLACK, _FLOOR = 2.0, 4.0, 1e-5
# Of the mean: a tenth of what was promised, and four standard errors.
_PROMISE_SLACK, _STANDARD_ERRORS = 0.1, 4.0
_NAMED = 8


@dataclass(frozen=True)
class Audit:
    """What asking again found.

    Attributes:
        verdict: ``faithful``: nothing is lost beyond the teacher's own noise. ``lossy``: as much is lost as the
            encoding loses. ``unfaithful``: more, in single entries or in the mean.
        entries: How many were asked for again.
        shards: In how many shards they lie.
        stored: ``mean`` and ``max`` in nats of KL(teacher now ‖ cache).
        encoding: The same of KL(teacher now ‖ teacher now, encoded).
        teacher: The same of KL(teacher now ‖ teacher now in other batches).
        promised: ``mean`` and ``max`` that the manifest states; None where it states none.
        same_bytes: Fraction of entries whose bytes are those of the answer encoded now.
        unfaithful: How many single entries lost more than can be explained.
        named: The first of them, in words.
    """

    verdict: str
    entries: int
    shards: int
    stored: dict[str, float]
    encoding: dict[str, float]
    teacher: dict[str, float]
    promised: dict[str, float] | None
    same_bytes: float
    unfaithful: int
    named: tuple[str, ...]


@dataclass(frozen=True)
class _Chosen:
    """Entries to ask for again: samples int64 (P,), views int64 (P,), and what the cache holds of them."""

    samples: NDArray[np.int64]
    view_indices: NDArray[np.int64]
    stored: dict[str, NDArray[Any]]
    shards: int


def audit(
    path: Path,
    teacher: Teacher,
    data: ImageSet,
    *,
    device: torch.device,
    entries: int = 1024,
    seed: int = 0,
    progress: Progress | None = None,
) -> Audit:
    """Ask a teacher again about some entries of a cache, drawn evenly from its shards.

    Args:
        path: A complete cache.
        teacher: The one that it says it was made from.
        data: The images that it was made for.
        device: Where the teacher runs.
        entries: About how many entries; at least two of each shard while there are that few shards.
        seed: Decides which.
        progress: Is told of every shard and batch.

    Raises:
        CacheDamagedError: A shard is missing or not as it was written.
        MismatchError: Another teacher, data set, or rendering.
    """
    if entries < 2:
        raise UsageError(f"{entries} entries tell nothing", hint="use --entries 2 or more")
    progress = progress or Silent()
    cache = open_cache(path)
    require_same_question(cache, teacher, data)
    encoding = from_config(cache.manifest.encoding, cache.manifest.classes)
    chosen = _choose(cache, entries, seed, progress)
    logits = _ask(cache, teacher, data, chosen, np.arange(len(chosen.samples)), device, progress)
    # Neighbours, place and size of batch differ; a machine that rounds by these shows it here.
    order = permutation(seed, 1, len(chosen.samples), domain=_DOMAIN)
    again = torch.empty_like(logits)
    again[order] = _ask(cache, teacher, data, chosen, order, device, progress)
    return _judge(cache, encoding, chosen, logits, again)


def _choose(cache: Cache, entries: int, seed: int, progress: Progress) -> _Chosen:
    layout = Layout(cache.manifest)
    number = min(layout.count, max(1, entries // 2))
    shards = [layout.shard(int(i)) for i in permutation(seed, 0, layout.count, domain=_DOMAIN)[:number]]
    share = -(-entries // number)
    samples, view_indices, parts = [], [], []
    with progress.stage("read", total=number, unit="shards") as stage:
        for shard in sorted(shards, key=lambda shard: shard.index):
            rows = permutation(seed, shard.index + 2, shard.stop - shard.start, domain=_DOMAIN)[:share]
            encoded = cache.shard(shard)
            parts.append({name: values[rows] for name, values in encoded.items()})
            samples.append(rows + shard.start)
            view_indices.append(np.full(len(rows), shard.view_index))
            stage.advance(1)
    stored = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _Chosen(np.concatenate(samples), np.concatenate(view_indices), stored, number)


def _ask(
    cache: Cache,
    teacher: Teacher,
    data: ImageSet,
    chosen: _Chosen,
    order: NDArray[np.int64],
    device: torch.device,
    progress: Progress,
) -> torch.Tensor:
    """Return logits float32 (P, classes) on the CPU, in the order asked."""
    settings = settings_of(cache.manifest)
    # Only the images that are asked about are padded; a view's address is that of the sample in the whole set.
    which, places = np.unique(chosen.samples, return_inverse=True)
    renderer = Renderer(data.images[which], settings.space, settings.normalization, device=device)
    views = settings.space.view_ids(chosen.samples, chosen.view_indices)
    size = (
        settings.batch_size if np.array_equal(order, np.arange(len(order))) else settings.batch_size // 2 + 1
    )
    parts = []
    with progress.stage("ask", total=len(order), unit="images") as stage:
        for start in range(0, len(order), size):
            part = order[start : start + size]
            ids = (torch.from_numpy(numbers[part]).to(device) for numbers in (places, views))
            parts.append(teacher.logits(renderer.render(*ids)).cpu())
            stage.advance(len(part))
    return torch.cat(parts)


def _judge(
    cache: Cache, encoding: Encoding, chosen: _Chosen, logits: torch.Tensor, again: torch.Tensor
) -> Audit:
    fields = {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in chosen.stored.items()}
    fresh = encoding.encode(logits)
    stored = divergence(logits, encoding.probabilities(fields, 1.0), 1.0)
    lost = divergence(logits, encoding.probabilities(fresh, 1.0), 1.0)
    noise = divergence(logits, torch.softmax(again.double(), dim=1), 1.0)
    same = torch.stack([(fields[n] == fresh[n]).reshape(len(logits), -1).all(dim=1) for n in fields]).all(
        dim=0
    )
    said = cache.summary.get("fidelity", {}).get("1")
    promised = None if said is None else {"mean": said["kl_mean"], "max": said["kl_max"]}
    slack = _TEACHER_SLACK * float(noise.max()) ** 0.5 + _FLOOR
    # A divergence that is no number passes no comparison, so it is asked what holds, not what fails.
    wrong = torch.nonzero(~(stored.sqrt() <= _ENCODING_SLACK * lost.sqrt() + slack))[:, 0].tolist()
    return Audit(
        verdict="unfaithful" if wrong else _verdict(stored, lost, slack, promised),
        entries=len(logits),
        shards=chosen.shards,
        stored=_told(stored),
        encoding=_told(lost),
        teacher=_told(noise),
        promised=promised,
        same_bytes=float(same.double().mean()),
        unfaithful=len(wrong),
        named=tuple(
            f"view {chosen.view_indices[i]}, sample {chosen.samples[i]}: {float(stored[i]):.1e} nats"
            for i in wrong[:_NAMED]
        ),
    )


def _verdict(
    stored: torch.Tensor, lost: torch.Tensor, slack: float, promised: dict[str, float] | None
) -> str:
    """Judge entries none of which is wrong by itself: by their mean, by what was promised, by what is left."""
    excess = stored - lost
    error = float(excess.std(correction=0)) / len(excess) ** 0.5
    mean = promised["mean"] if promised else float(lost.mean())
    allowed = max(_PROMISE_SLACK * mean, slack**2) + _STANDARD_ERRORS * error
    most = (promised["max"] ** 0.5 + slack) ** 2 if promised else float("inf")
    if float(excess.mean()) > allowed or float(stored.max()) > most:
        return "unfaithful"
    return "faithful" if float(stored.max()) <= slack**2 else "lossy"


def _told(values: torch.Tensor) -> dict[str, float]:
    return {"mean": float(values.mean()), "max": float(values.max())}
