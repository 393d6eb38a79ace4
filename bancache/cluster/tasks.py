"""The tasks of a dump: one for each shard, done when its record lies in the cache.

A task names what it needs; its arguments are a few hundred bytes. The teacher and the images are opened once in each
process and stay open for the next task.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import manifest_of, read_manifest
from bancache.cache.opening import attend
from bancache.cache.records import recorded_shards
from bancache.cache.remote_opening import attend_remote
from bancache.cache.remote_writer import Writer
from bancache.errors import BancacheError, MismatchError, UsageError
from bancache.system.address import Address, as_place

if TYPE_CHECKING:
    import torch

    from bancache.dumping.forward import Collect, TeacherForward


@dataclass(frozen=True)
class Origin:
    """Where a worker finds the teacher and the images of a cache, and on which device it runs the teacher.

    ``mixed`` allows another kind of device than the one that began the cache.

    ``teachers`` are names and weights as for ``load_teacher``, several for an ensemble. Without any, the teacher is the one
    in the cache's manifest, which is opened as a checkpoint only: it may be a stranger's. With ``data`` None, the images are
    those in the manifest.
    """

    teachers: tuple[tuple[str, str | None], ...] = ()
    data: str | None = None
    device: str = "auto"
    mixed: bool = False


@dataclass
class _Open:
    """The teacher that this process has open, with its images."""

    of: tuple[Origin, str] | None = None
    forward: TeacherForward | None = None
    warnings: list[str] = field(default_factory=list)
    made_on: dict[str, Any] = field(default_factory=dict)  # as of a writer


_OPEN = _Open()
# Torch, numba and CUDA are loaded, compile and run in one thread, whichever threads an engine has: others write.
_TEACHER_THREAD = ThreadPoolExecutor(1)


def plan_shards(cache: str | os.PathLike[str]) -> list[int]:
    """Return the shards of a cache that are still to be done, in an order in which they can be.

    A shard of profile compact is stored relative to one of view 0, which comes first; no other shard needs another one.

    Raises:
        CacheDamagedError: There is no cache. ``dump`` begins it.
    """
    path = as_place(cache)
    stored = read_manifest(path)
    if stored["complete"]:
        return []
    layout = Layout(manifest_of(stored))
    done = recorded_shards(path, layout)
    return [index for index in range(layout.count) if index not in done]


def dump_shard(
    cache: str | os.PathLike[str],
    shard: int,
    *,
    teacher: str | Sequence[str] | None = None,
    weights: str | Sequence[str | None] | None = None,
    data: str | None = None,
    device: str = "auto",
    mixed: bool = False,
) -> bool:
    """Do one shard of a cache that ``dump`` has begun, and return whether it was still to be done.

    It may be called at any time, in any process that sees the cache, any number of times: the bytes are the same. The
    process that runs ``dump`` completes the cache. The teacher and the images stay open for the next call.

    Args:
        cache: The cache's directory, or its address in an object store.
        shard: Its index, of ``plan_shards``.
        teacher: The teacher, as for ``load_teacher``, or all of an ensemble; None for the checkpoints that the manifest names.
        weights: A file with weights for it; of an ensemble one for each, or None.
        data: The address of the images; None for the one in the manifest.
        device: ``auto`` is the kind of device that the cache was begun on.
        mixed: Allow another kind of device; the cache says so.

    Raises:
        CacheDamagedError: There is no cache, or nobody has begun it.
        MismatchError: The teacher, the images, their pixels or the device are not those of the cache.
        UsageError: There is no such shard, or it needs one of view 0 that is not done yet.
    """
    origin = Origin(_with_weights(teacher, weights), data, device, mixed)
    fingerprint = manifest_of(read_manifest(Path(cache))).fingerprint
    return write_shard(str(cache), fingerprint, shard, origin).wrote


def _with_weights(
    teacher: str | Sequence[str] | None, weights: str | Sequence[str | None] | None
) -> tuple[tuple[str, str | None], ...]:
    names = [teacher] if isinstance(teacher, str) else teacher or []
    files = [weights] * len(names) if weights is None or isinstance(weights, str) else weights
    if len(files) != len(names) or (weights is not None and not names):
        raise UsageError(
            f"weights {weights} for teacher {teacher}", hint="give one, or None, for each teacher"
        )
    return tuple(zip(names, files, strict=True))


@dataclass(frozen=True)
class Wrote:
    """Whether a task wrote its shard, or found it done, and what the user should know."""

    wrote: bool
    warnings: tuple[str, ...] = ()


def write_shard(cache: str, fingerprint: str, index: int, origin: Origin) -> Wrote:
    """Do one shard of the cache whose manifest has this fingerprint."""
    with _attend(as_place(cache), fingerprint) as writer:
        if writer is None:
            return Wrote(False)
        if not 0 <= index < writer.layout.count:
            raise UsageError(f"{cache} has no shard {index}, it has {writer.layout.count}")
        shard = writer.layout.shard(index)
        if writer.is_recorded(shard):
            return Wrote(False)
        if not writer.is_ready(shard):
            base = writer.layout.requires(shard)
            raise UsageError(
                f"{shard} is stored relative to {base}, which is not done", hint="do that one first"
            )
        collect, warnings, writer.made_on = alone(_start, writer, shard, origin)
        writer.write_shard(shard, *collect())
        return Wrote(True, warnings)


def _attend(path: Path, fingerprint: str) -> AbstractContextManager[Writer | None]:
    return attend_remote(path, fingerprint) if isinstance(path, Address) else attend(path, fingerprint)


def alone(task: Callable[..., Any], *args: Any) -> Any:
    """Run a task in the only thread of this process that runs teachers."""
    return _TEACHER_THREAD.submit(task, *args).result()


def keep_open(
    origin: Origin, manifest: Manifest, forward: TeacherForward, made_on: dict[str, Any] | None = None
) -> None:
    """Let the next task of a cache use a teacher that is open; called in ``alone``."""
    _OPEN.of, _OPEN.forward = (origin, manifest.fingerprint), forward
    _OPEN.warnings, _OPEN.made_on = [], made_on or {}


def _start(writer: Writer, shard: Shard, origin: Origin) -> tuple[Collect, tuple[str, ...], dict[str, Any]]:
    """Run the teacher on a shard, after opening it if another one is open; called in ``alone``."""
    from bancache.dumping.run import mixture_warning

    manifest = writer.layout.manifest
    if _OPEN.forward is None or _OPEN.of != (origin, manifest.fingerprint):
        _OPEN.of = _OPEN.forward = None  # the memory of the one before
        device, made_on = _device_of(manifest, origin)
        forward = _open_forward(manifest, origin, device)
        keep_open(origin, manifest, forward, made_on)
        if (warning := mixture_warning(writer, forward)) and not made_on:
            _OPEN.warnings.append(warning)
    warnings, _OPEN.warnings = tuple(_OPEN.warnings), []
    assert _OPEN.forward is not None
    return _OPEN.forward.start(shard, lambda amount: None), warnings, _OPEN.made_on


def _open_forward(manifest: Manifest, origin: Origin, device: torch.device) -> TeacherForward:
    """Open the teacher and the images of a cache; MismatchError if they are not those that it was begun with."""
    from bancache.dumping.recompute import (
        forward_of,
        load_again,
        require_same_pixels,
        require_same_teacher,
    )
    from bancache.sources.spec import DataSpec

    images = DataSpec.from_dict(manifest.dataset["spec"]).moved(origin.data).open("train")
    teacher = load_again(manifest, origin.teachers, images, device)
    require_same_teacher(manifest, teacher, images)
    require_same_pixels(manifest, images)
    return forward_of(manifest, teacher, images, device)


def _device_of(manifest: Manifest, origin: Origin) -> tuple[torch.device, dict[str, Any]]:
    """Return the device of the kind that a cache was begun on, or, if ``origin`` allows it, another one and its kind."""
    from bancache.system.device import arithmetic, choose_device, make_deterministic

    compute, name = manifest.compute, origin.device
    if compute.get("deterministic"):
        make_deterministic()
    is_cpu = name == "auto" and compute.get("device") == "cpu" and not origin.mixed
    device = choose_device("cpu" if is_cpu else name)
    same = {name: compute[name] for name in ("batch_size", "precision")}
    here = replace(manifest, compute={**same, **arithmetic(device)})
    if not origin.mixed:
        manifest.require_same_device(here)
    return device, manifest.other_device(here)


@dataclass(frozen=True)
class Outcome:
    """What a task returned or raised on purpose, and the host where it ran."""

    host: str
    value: Any = None
    error: BancacheError | None = None


@cache
def own_versions() -> tuple[str, str]:
    """Return the versions of bancache and torch, which must be the same on all workers."""
    return str(import_module("bancache").__version__), metadata.version("torch")


def attempt(versions: tuple[str, str], task: Callable[..., Any], *args: Any) -> Outcome:
    """Run a task on a worker of the same versions; errors of bancache are returned with the host's name."""
    host = socket.gethostname()
    try:
        for name, wanted, found in zip(("bancache", "torch"), versions, own_versions(), strict=True):
            if wanted != found:
                raise MismatchError(
                    f"this command has {name} {wanted}, a worker has {name} {found}",
                    hint="install the same versions on all workers",
                )
        return Outcome(host, task(*args))
    except BancacheError as error:
        return Outcome(host, error=error)
