"""What a dump would cost and lose, measured on a probe before it is paid for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.cache.profile import COMPACT, DEFAULT, folded
from bancache.cache.sizes import stored_bytes
from bancache.dumping.noise import NoiseFloor, noise_floor
from bancache.encodings import Encoding, parse_encoding
from bancache.encodings.certify import is_faithful, loss_at
from bancache.encodings.fidelity import summarize, tally
from bancache.errors import UsageError
from bancache.models.teacher import Teacher
from bancache.philox import permutation
from bancache.sources.base import ImageSet
from bancache.views.renderer import Normalization, Renderer
from bancache.views.space import ViewSpace

_DOMAIN = 0x5AFE_0004


@dataclass(frozen=True)
class Probe:
    """A teacher's answers to some views, drawn evenly from all that a dump would ask.

    Attributes:
        logits: float32 (P, classes), on the CPU.
        images_per_second: Of rendering and the teacher's forward pass, on this device.
        first: Its answers to what the same samples show in view index 0, float32 (P, classes), if it was asked.
        view_indices: Which view index each entry is of, int64 (P,), if view index 0 was asked for.
        noise_floor: What the teacher differs from itself by, on the first batch of the probe.
    """

    logits: torch.Tensor
    images_per_second: float
    first: torch.Tensor | None = None
    view_indices: NDArray[np.int64] | None = None
    noise_floor: NoiseFloor | None = None


@dataclass(frozen=True)
class Option:
    """One encoding on a probe.

    Attributes:
        encoding: Its name.
        bytes_per_entry: After compression, without metadata.
        fidelity: As a cache's summary has it, by temperature.
        max_temperature: The highest temperature it is faithful at; None without limit.
        compact_bytes_per_entry: The same in profile compact, beyond view index 0; None where that profile keeps it
            no other way, or the probe cannot tell.
    """

    encoding: str
    bytes_per_entry: float
    fidelity: dict[str, dict[str, float]]
    max_temperature: float | None
    compact_bytes_per_entry: float | None = None

    @property
    def limit(self) -> float:
        """The highest temperature as a number."""
        return float("inf") if self.max_temperature is None else self.max_temperature

    def kl_mean(self, temperature: float) -> float:
        """Return the mean divergence in nats at a temperature no higher than the highest measured one."""
        lost = loss_at(self.fidelity, temperature)
        if lost is None:
            raise UsageError(
                f"divergence is not measured at temperature {temperature:g}", hint="use --encoding float32"
            )
        return lost


def take_probe(
    teacher: Teacher,
    data: ImageSet,
    space: ViewSpace,
    num_views: int,
    normalization: Normalization,
    *,
    device: torch.device,
    entries: int = 4096,
    batch_size: int = 256,
) -> Probe:
    """Ask a teacher about ``entries`` random entries of the dump that is meant."""
    renderer = Renderer(data.images, space, normalization, device=device)
    samples = permutation(space.seed, 0, len(data), domain=_DOMAIN)[: min(entries, len(data))]
    view_indices = permutation(space.seed, 1, len(samples), domain=_DOMAIN) % num_views

    def ask(views: NDArray[np.int64], count: int) -> torch.Tensor:
        parts = [slice(start, start + batch_size) for start in range(0, count, batch_size)]
        asked = (renderer.render(*_batch(samples[part], views[part], device)) for part in parts)
        return torch.cat([teacher.logits(images).cpu() for images in asked])

    first = ask(space.view_ids(samples, 0), len(samples))  # and warm-up
    started = time.monotonic()
    views = space.view_ids(samples, view_indices)
    logits = ask(views, len(samples))
    seconds = time.monotonic() - started
    batch = _batch(samples[:batch_size], views[:batch_size], device)
    noise = noise_floor(teacher, renderer.render(*batch), logits[:batch_size].to(device))
    return Probe(logits, len(samples) / max(seconds, 1e-9), first, view_indices, noise)


def weigh(probe: Probe, names: Sequence[str]) -> list[Option]:
    """Return each encoding's size and loss on a probe, smallest first."""
    options = []
    for name in names:
        encoding = parse_encoding(name, probe.logits.shape[1])
        fields = encoding.encode(probe.logits)
        limit = encoding.max_temperature
        plain, compact = _sizes(encoding, probe, fields)
        options.append(
            Option(
                encoding=name,
                bytes_per_entry=plain,
                fidelity=summarize(tally(encoding, probe.logits, fields)),
                max_temperature=None if limit == float("inf") else limit,
                compact_bytes_per_entry=compact,
            )
        )
    return sorted(options, key=lambda option: option.bytes_per_entry)


def choose(options: Sequence[Option], *, max_kl: float, temperature: float) -> Option:
    """Return the smallest encoding whose mean divergence at ``temperature`` is at most ``max_kl`` nats.

    Raises:
        UsageError: None is faithful enough; the best there is is named.
    """
    fit = [o for o in options if is_faithful(o.limit, temperature, o.fidelity)]
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


def _sizes(
    encoding: Encoding, probe: Probe, fields: Mapping[str, torch.Tensor]
) -> tuple[float, float | None]:
    """Return bytes an entry in profile default and, where it differs, in compact."""
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
