"""Estimate the size, the time and the quantization error of a dump from a probe of the teacher's logits."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.cache.profile import COMPACT, DEFAULT, folded
from bancache.cache.views import stored_bytes
from bancache.dumping.forward import NoiseFloor, noise_floor, pair_logits, render
from bancache.dumping.settings import DumpSettings
from bancache.dumping.summary import OVERFLOWS
from bancache.dumping.teacher_input import input_renderer
from bancache.encodings import Encoding, parse_encoding
from bancache.encodings.fidelity import TEMPERATURES, summarize, tally
from bancache.encodings.temperature_limits import divergence_at, supports_temperature
from bancache.errors import NonFiniteError, UsageError
from bancache.models.teacher import Teacher
from bancache.philox import permutation
from bancache.sources.image_set import ImageSet
from bancache.system.progress import Progress, Silent

_DOMAIN = 0x5AFE_0004


@dataclass(frozen=True)
class Probe:
    """A teacher's logits for a random sample of the (sample, view) pairs of a dump, float32 (P, classes), on the CPU.

    ``first`` has the logits of view 0 of the same samples, ``view_indices`` the view index of each pair, int64 (P,).
    ``noise_floor`` is measured on the first batch; ``accuracy`` and ``confidence``, the mean largest probability, on all.
    """

    logits: torch.Tensor
    images_per_second: float
    first: torch.Tensor | None = None
    view_indices: NDArray[np.int64] | None = None
    noise_floor: NoiseFloor | None = None
    accuracy: float = math.nan
    confidence: float = math.nan


@dataclass(frozen=True)
class Option:
    """Size and quantization error of one encoding on a probe.

    Bytes are after compression, without metadata. ``compact_bytes_per_pair`` is for the views after view 0; None if
    profile compact stores this encoding like the others, or the probe has no view 0.
    """

    encoding: str
    bytes_per_pair: float
    fidelity: dict[str, dict[str, float]]
    max_temperature: float
    compact_bytes_per_pair: float | None = None

    def kl_mean(self, temperature: float) -> float:
        """Return the mean divergence in nats at a temperature; UsageError if it was not measured there."""
        kl = divergence_at(self.fidelity, temperature)
        if kl is None:
            raise UsageError(
                f"divergence is measured up to temperature {TEMPERATURES[-1]:g}, not at {temperature:g}",
                hint="use --encoding float32",
            )
        return kl


def take_probe(
    teacher: Teacher,
    data: ImageSet,
    settings: DumpSettings,
    *,
    device: torch.device,
    num_pairs: int = 4096,
    progress: Progress | None = None,
) -> Probe:
    """Run a teacher on at most ``num_pairs`` random (sample, view) pairs of a dump, one of each sample.

    Raises:
        NonFiniteError: Logits are NaN or infinite, or further apart than float32 counts.
    """
    space, batch_size = settings.space, settings.batch_size
    renderer = input_renderer(teacher, data.images, settings, device)
    samples = permutation(space.seed, 0, len(data), domain=_DOMAIN)[:num_pairs]
    view_indices = permutation(space.seed, 1, len(samples), domain=_DOMAIN) % settings.num_views
    view_ids = space.view_ids(samples, view_indices)
    with (progress or Silent()).stage("plan", total=2 * len(samples), unit="images") as stage:
        forward = partial(
            pair_logits, teacher, renderer, samples, batch_size=batch_size, advance=stage.advance
        )
        first = forward(space.view_ids(samples, 0))  # also the warm-up
        started = time.monotonic()
        logits = forward(view_ids)
        seconds = time.monotonic() - started
    # Their differences must be finite, too, as in a dump.
    if bad := int((~torch.isfinite(logits.amax(dim=1) - logits.amin(dim=1))).sum()):
        raise NonFiniteError(
            f"the teacher gave logits that are not finite, or further apart than float32 counts, for {bad:,} of "
            f"{len(samples):,} images",
            hint=OVERFLOWS,
        )
    images = render(renderer, samples[:batch_size], view_ids[:batch_size])
    noise = noise_floor(teacher, images, logits[:batch_size].to(device))
    accuracy = float((logits.argmax(dim=1) == torch.tensor(data.labels[samples])).double().mean())
    confidence = float(torch.softmax(logits.double(), dim=1).amax(dim=1).mean())
    rate = len(samples) / max(seconds, 1e-9)
    return Probe(logits, rate, first, view_indices, noise, accuracy, confidence)


def weigh(probe: Probe, names: Sequence[str], progress: Progress | None = None) -> list[Option]:
    """Return each encoding's size and error on a probe, smallest first; encodings that it does not fit are noted."""
    options = []
    for name in names:
        encoding = parse_encoding(name, probe.logits.shape[1])
        try:
            fields = encoding.encode(probe.logits)
        except NonFiniteError as error:
            (progress or Silent()).note(f"{name} is left out: {error}")
            continue
        fidelity = summarize(tally(encoding, probe.logits, fields))
        plain, compact = _sizes(encoding, probe, fields)
        options.append(Option(name, plain, fidelity, encoding.max_temperature, compact))
    return sorted(options, key=lambda option: option.bytes_per_pair)


def choose(options: Sequence[Option], *, max_kl: float, temperature: float) -> Option:
    """Return the smallest encoding whose mean divergence at ``temperature`` is at most ``max_kl`` nats.

    Raises:
        UsageError: No encoding is accurate enough; the message names the best one.
    """
    certified = [o for o in options if supports_temperature(o.max_temperature, temperature, o.fidelity)]
    for option in certified:
        if option.kl_mean(temperature) <= max_kl:
            return option
    best = min(certified, key=lambda option: option.kl_mean(temperature))
    raise UsageError(
        f"no encoding loses at most {max_kl:g} nats at temperature {temperature:g}; "
        f"'{best.encoding}' loses {best.kl_mean(temperature):.1e}",
        hint="use a larger --max-kl, or --encoding float32",
    )


def break_even(*, num_views: int, epochs: int) -> float:
    """Return the number of students from which a cache needs fewer forward passes than online distillation.

    A dump needs one teacher pass per view of an image, online distillation one per epoch and student.
    """
    return num_views / epochs


def _sizes(
    encoding: Encoding, probe: Probe, fields: Mapping[str, torch.Tensor]
) -> tuple[float, float | None]:
    """Return bytes per pair in profile default and, if they differ, in compact."""
    classes = probe.logits.shape[1]
    arrays = {name: part.numpy() for name, part in fields.items()}
    plain = stored_bytes(arrays, classes, DEFAULT) / len(probe.logits)
    if probe.first is None or probe.view_indices is None or not folded(COMPACT, encoding.fields(), classes):
        return plain, None
    beyond = probe.view_indices > 0
    if not beyond.any():
        return plain, None
    reference = {name: part.numpy()[beyond] for name, part in encoding.encode(probe.first).items()}
    arrays = {name: part[beyond] for name, part in arrays.items()}
    return plain, stored_bytes(arrays, classes, COMPACT, reference=reference) / int(beyond.sum())
