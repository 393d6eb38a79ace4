"""What a dump would cost and lose, measured on a probe before it is paid for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.dump.room import compressed_bytes
from bancache.encodings import parse_encoding
from bancache.encodings.fidelity import summarise, tally
from bancache.errors import UsageError
from bancache.philox import permutation
from bancache.sources.base import ImageSet
from bancache.teacher import Teacher
from bancache.views.apply import Normalisation, Renderer
from bancache.views.space import ViewSpace

_DOMAIN = 0x5AFE_0004


@dataclass(frozen=True)
class Probe:
    """A teacher's answers to some views, drawn evenly from all that a dump would ask.

    Attributes:
        logits: float32 (P, classes), on the CPU.
        images_per_second: Of rendering and the teacher's forward pass, on this device.
    """

    logits: torch.Tensor
    images_per_second: float


@dataclass(frozen=True)
class Option:
    """One encoding on a probe.

    Attributes:
        encoding: Its name.
        bytes_per_entry: After compression, without metadata.
        fidelity: As a cache's summary has it, by temperature.
        max_temperature: The highest temperature it is faithful at; None without limit.
    """

    encoding: str
    bytes_per_entry: float
    fidelity: dict[str, dict[str, float]]
    max_temperature: float | None

    def kl_mean(self, temperature: float) -> float:
        """Return the mean divergence in nats at one of the measured temperatures."""
        return self.fidelity[f"{temperature:g}"]["kl_mean"]


def take_probe(
    teacher: Teacher,
    data: ImageSet,
    space: ViewSpace,
    num_views: int,
    normalisation: Normalisation,
    *,
    device: torch.device,
    entries: int = 4096,
    batch_size: int = 256,
) -> Probe:
    """Ask a teacher about ``entries`` random entries of the dump that is meant."""
    renderer = Renderer(data.images, space, normalisation, device=device)
    samples = permutation(space.seed, 0, len(data), domain=_DOMAIN)[: min(entries, len(data))]
    slots = permutation(space.seed, 1, len(samples), domain=_DOMAIN) % num_views
    views = space.view_ids(samples, slots)
    teacher.logits(renderer.render(*_batch(samples[:batch_size], views[:batch_size], device)))  # warm-up
    started, parts = time.monotonic(), []
    for start in range(0, len(samples), batch_size):
        part = slice(start, start + batch_size)
        parts.append(teacher.logits(renderer.render(*_batch(samples[part], views[part], device))).cpu())
    seconds = time.monotonic() - started
    return Probe(torch.cat(parts), len(samples) / max(seconds, 1e-9))


def weigh(probe: Probe, names: Sequence[str]) -> list[Option]:
    """Return each encoding's size and loss on a probe, smallest first."""
    options = []
    for name in names:
        encoding = parse_encoding(name, probe.logits.shape[1])
        fields = encoding.encode(probe.logits)
        limit = encoding.max_temperature
        options.append(
            Option(
                encoding=name,
                bytes_per_entry=compressed_bytes(fields) / len(probe.logits),
                fidelity=summarise(tally(encoding, probe.logits, fields)),
                max_temperature=None if limit == float("inf") else limit,
            )
        )
    return sorted(options, key=lambda option: option.bytes_per_entry)


def choose(options: Sequence[Option], *, max_kl: float, temperature: float) -> Option:
    """Return the smallest encoding whose mean divergence at ``temperature`` is at most ``max_kl`` nats.

    Raises:
        UsageError: None is faithful enough; the best there is is named.
    """
    fit = [o for o in options if o.max_temperature is None or o.max_temperature >= temperature]
    for option in fit:
        if option.kl_mean(temperature) <= max_kl:
            return option
    best = min(fit, key=lambda option: option.kl_mean(temperature))
    raise UsageError(
        f"no encoding loses at most {max_kl:g} nats at temperature {temperature:g}; "
        f"'{best.encoding}' loses {best.kl_mean(temperature):.1e}",
        hint="allow more, or use --encoding float32",
    )


def break_even(*, num_views: int, epochs: int) -> float:
    """Return after how many students a cache has cost fewer teacher forward passes than a teacher online.

    A dump asks once for each view; a student with the teacher online asks once for each image and epoch.
    """
    return num_views / epochs


def _batch(
    samples: NDArray[np.int64], views: NDArray[np.int64], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(samples).to(device), torch.from_numpy(views).to(device)
