"""What decides a cache: what the user asked for, what a cache that was begun has decided, and the choices in between."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from typer import Option

from bancache.errors import UsageError
from bancache.system.device import make_deterministic
from bancache.system.wording import count
from bancache_cli import options, teachers

if TYPE_CHECKING:
    import torch

    from bancache.dumping import DumpSettings
    from bancache.system.progress import Progress


@dataclass(frozen=True)
class EncodingOptions(options.StoreOptions):
    """How a cache stores soft targets, and how much it may lose."""

    max_kl: Annotated[
        float | None,
        Option(help="Choose the smallest encoding with at most this mean KL in nats, and enforce it."),
    ] = None
    temperature: Annotated[
        float | None,
        Option(
            min=0.01,
            help="Temperature of the students: decides the encoding and where --max-kl applies "
            "(default: from the teacher's recipe).",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.encoding is not None and self.max_kl is not None:
            raise UsageError("--max-kl chooses the encoding", hint="leave out --encoding or --max-kl")
        for option, value in (("--max-kl", self.max_kl), ("--temperature", self.temperature)):
            if value is not None and not 0 <= value < float("inf"):
                raise UsageError(f"{option} {value:g}", hint=f"give {option} a number that is not negative")


class Begun(NamedTuple):
    """What a cache that goes on has decided: the batch size, the encoding, and the fingerprint of its images."""

    batch_size: int
    encoding: str
    data: str


@dataclass(frozen=True)
class Asked:
    """What decides a cache, as the user asked for it, and what a cache that was begun has already decided."""

    teacher: teachers.TeacherOptions
    views: options.SeededViewOptions
    encoding: EncodingOptions
    data: options.TeacherDataOptions
    batch_size: int | None
    device: str
    deterministic: bool
    begun: Begun | None = None

    def settle(self, device: torch.device, reporter: Progress) -> tuple[teachers.Opened, DumpSettings]:
        """Open the teacher and its images, and choose what the user left open."""
        if self.deterministic:
            make_deterministic()
        begun = self.begun
        opened = teachers.open_teacher(
            self.teacher, self.views.views, self.data, device, reporter, begun and begun.data
        )
        settings = teachers.dump_settings(opened, self.views, self.encoding.temperature)
        name = self.encoding.encoding or settings.encoding
        if begun is None:
            _note_temperatures(self.encoding, name, reporter)
        kept = self.batch_size or (begun and begun.batch_size)
        at_once = kept or _batch_size(opened, settings, device, reporter)
        settings = replace(settings, encoding=name, batch_size=at_once, profile=self.encoding.profile)
        if self.encoding.max_kl is not None:
            bound = teachers.student_temperature(opened, self.encoding.temperature), self.encoding.max_kl
            settings = _bounded(opened, settings, bound, begun and begun.encoding, device, reporter)
        return opened, settings


def kept_choices(out: Path) -> Begun | None:
    """Return what a cache that exists, complete or not, has decided; None if there is none."""
    from bancache.cache.manifest_io import find_manifest, manifest_of

    if (stored := find_manifest(out)) is None:
        return None
    manifest = manifest_of(stored)
    return Begun(manifest.compute["batch_size"], manifest.encoding["name"], manifest.dataset["fingerprint"])


def _note_temperatures(asked: EncodingOptions, name: str, reporter: Progress) -> None:
    """Say what the usual encoding will not serve, unless the user chose it."""
    usual = asked.encoding is None and asked.temperature is None and asked.max_kl is None
    if usual and name == "root4":
        reporter.note(
            "root4 serves students at temperature 1; for loss kd at 2 to 4, dump with --temperature 4"
        )


def _bounded(
    opened: teachers.Opened,
    settings: DumpSettings,
    bound: tuple[float, float],
    begun_with: str | None,
    device: torch.device,
    reporter: Progress,
) -> DumpSettings:
    """Return the settings with the smallest encoding that keeps the bound, (temperature, KL in nats), on a probe.

    A dump that goes on keeps its encoding.
    """
    from bancache.dumping.plan import choose, take_probe, weigh
    from bancache.encodings import KNOWN

    if begun_with is not None:
        return replace(settings, bound=bound, encoding=begun_with)
    probe = take_probe(opened.teacher, opened.images, settings, device=device, progress=reporter)
    temperature, max_kl = bound
    chosen = choose(weigh(probe, KNOWN, reporter), max_kl=max_kl, temperature=temperature)
    reporter.note(
        f"{chosen.encoding}: {chosen.bytes_per_pair:.1f} bytes per pair, mean KL "
        f"{chosen.kl_mean(temperature):.1e} nats at temperature {temperature:g} on {count(len(probe.logits), 'pair')}"
    )
    return replace(settings, bound=bound, encoding=chosen.encoding)


def _batch_size(
    opened: teachers.Opened, settings: DumpSettings, device: torch.device, reporter: Progress
) -> int:
    """Return a batch size that suits the teacher and the device."""
    from bancache.dumping.batch_size import choose_batch_size
    from bancache.dumping.forward import forward_needs

    needs = forward_needs(opened.teacher, opened.images, settings, device)
    return choose_batch_size(opened.teacher, opened.images, settings, needs, device, reporter)
