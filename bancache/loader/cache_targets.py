"""CacheTargets: soft targets from a cache, one view of every sample at a time."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from numpy.typing import NDArray

from bancache.cache.layout import Layout
from bancache.cache.reader import Cache
from bancache.encodings import from_config
from bancache.encodings.dense import Dense
from bancache.encodings.root import ZERO_STEP, Root
from bancache.encodings.temperature_limits import require_temperature
from bancache.loader.lookahead import Lookahead
from bancache.losses.weights import Codes
from bancache.views import ViewSpace

Kept = Literal["device", "host", "none"]
Tensors = dict[str, torch.Tensor]


class CacheTargets:
    """Soft targets from a cache, on a device.

    The encoded targets of one view of every sample are read whole, checked against the manifest, and copied to the
    device while the view before is in use. Either all views stay on the device, or all stay in the host's memory, or one
    is current and one is fetched ahead, and memory does not grow with the number of views.

    Attributes:
        device: Where the encoded targets are.
        decode_on: Where probabilities appear.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        temperature: float = 1.0,
        device: torch.device | str = "cpu",
        keep: Kept = "device",
        decode_on: torch.device | str | None = None,
    ) -> None:
        """Prepare to read a cache's targets; ``keep`` is where the targets of a view stay after their epoch.

        Probabilities appear on ``decode_on``, by default on ``device``: two devices would round them differently.
        """
        manifest = cache.manifest
        self._encoding = from_config(manifest.encoding, manifest.classes, manifest.fields)
        require_served(cache, temperature)
        self._cache, self._temperature, self.device = cache, temperature, torch.device(device)
        self.decode_on = torch.device(decode_on or self.device)
        # To map a view again costs nothing, and each map that is kept costs a file descriptor.
        self._keep: Kept = "none" if cache.mapped and self.device.type == "cpu" else keep
        self._copies = HostToDevice(self.device)
        self._fetched = Lookahead(self._fetch, name="targets")
        self._kept: dict[int, Tensors] = {}
        self._current: Tensors = {}
        self._view_index: int | None = None
        self._fixed = False

    def begin(self, view_index: int, following: int) -> None:
        """Make the targets of a view current, and start to fetch the targets of the ``following`` view."""
        kept = self._kept if self._keep == "device" else {}
        if view_index in kept:
            self._show(kept[view_index])
        elif view_index != self._view_index:
            encoded = self._fetched.get(view_index).received(self.device)
            if self._keep == "device":
                self._kept[view_index] = encoded
            self._show(encoded)
        self._view_index = view_index
        if following != view_index and following not in kept:
            self._fetched.prepare(following)

    def probabilities(self, samples: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of samples in the current view, float32 (B, classes); ``images`` are not used."""
        return self._encoding.probabilities(self._rows(samples), self._temperature)

    def logits(self, samples: torch.Tensor) -> torch.Tensor | None:
        """Return the teacher's logits of samples in the current view, float32 (B, classes); None if none are stored."""
        if isinstance(self._encoding, Dense) and self._encoding.has_logits:
            return self._encoding.logits(self._rows(samples))
        return None

    def _rows(self, samples: torch.Tensor) -> Tensors:
        return {
            name: part.index_select(0, samples).to(self.decode_on, non_blocking=True)
            for name, part in self._current.items()
        }

    def codes(self) -> Codes | None:
        """Return the current view's targets for a loss that decodes them itself; None unless they are root codes."""
        if not isinstance(self._encoding, Root):
            return None
        return Codes(self._current["q"], self._encoding.root, self._encoding.levels, ZERO_STEP)

    def hold(self) -> None:
        """Copy each view's targets into the same buffers from now on, so that a captured graph can read them."""
        self._current = {name: part.clone() for name, part in self._current.items()}
        self._fixed = True

    def _show(self, encoded: Tensors) -> None:
        if not self._fixed:
            self._current = encoded
            return
        for name, part in encoded.items():
            self._current[name].copy_(part)

    def _fetch(self, view_index: int) -> PendingCopy:
        """Read a view's targets, unless the host keeps them, and start to copy them; in any thread."""
        pinned = self._kept.get(view_index) if self._keep == "host" else None
        if pinned is None:
            pinned = self._copies.pin(self._cache.read_view(view_index))
            if self._keep == "host":
                self._kept[view_index] = pinned
        return self._copies.start(pinned)


@dataclass(frozen=True)
class PendingCopy:
    """Tensors on the device, complete once ``arrived`` is; it is None where nothing had to be copied."""

    tensors: Tensors
    arrived: torch.cuda.Event | None = None

    def received(self, device: torch.device) -> Tensors:
        """Return the tensors; work that is queued from now on waits for the copy, the host does not."""
        if self.arrived is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(self.arrived)
            for part in self.tensors.values():
                part.record_stream(stream)  # its memory was allocated on the other stream
        return self.tensors


class HostToDevice:
    """Copies from page-locked memory on a CUDA stream of its own; on a CPU it copies nothing."""

    def __init__(self, device: torch.device) -> None:
        """Open a stream on a CUDA device."""
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def pin(self, encoded: Mapping[str, NDArray[Any]]) -> Tensors:
        """Return arrays as tensors of the host, in page-locked memory if they are to be copied."""
        tensors = {name: torch.from_numpy(part) for name, part in encoded.items()}
        if self._stream is None:
            return tensors
        with torch.cuda.device(self._device):  # a thread starts on device 0
            return {name: part.pin_memory() for name, part in tensors.items()}

    def start(self, pinned: Tensors) -> PendingCopy:
        """Start to copy what ``pin`` returned; may be called from any thread."""
        if self._stream is None:
            return PendingCopy(pinned)
        with torch.cuda.stream(self._stream):
            copies = {name: part.to(self._device, non_blocking=True) for name, part in pinned.items()}
            return PendingCopy(copies, self._stream.record_event())


def decoded_bytes(cache: Cache) -> int:
    """Return the bytes of a cache's encoded targets, without the compression of its files."""
    arrays = Layout(cache.manifest).array_settings()
    return sum(array["dtype"].itemsize * math.prod(array["shape"]) for array in arrays)


def require_served(cache: Cache, temperature: float) -> None:
    """Refuse a temperature that a cache's encoding is not accurate enough for; the hint names the dump that is."""
    manifest, fidelity = cache.manifest, cache.summary.get("fidelity")
    encoding = from_config(manifest.encoding, manifest.classes, manifest.fields)
    require_temperature(
        encoding, manifest.classes, temperature, fidelity, lambda enough: _dump_again(cache, enough)
    )


def _dump_again(cache: Cache, encoding: str) -> str:
    """Say how to dump the same views of the same images with another encoding: of checkpoints, the very command."""
    manifest, taught = cache.manifest, cache.manifest.teacher
    teachers, option = taught.get("members", [taught]), f"--encoding {encoding}"
    paths = [str(each.get("path", "")) for each in teachers]
    if any(":" in path or not path.endswith(".pt") for path in paths):
        return f"dump again with {option}"
    space, data = ViewSpace.from_dict(manifest.view_space), manifest.dataset
    words = [word for path in paths for word in ("--teacher", path)]
    words += ["--combine", "logits"] if taught.get("combine") == "logits" else []
    words += ["--data", data["spec"]["source"]]
    for name in ("limit", "image_size"):
        words += [f"--{name.replace('_', '-')}", str(data["spec"][name])] if data["spec"].get(name) else []
    words += ["--skip-bad"] if data["spec"].get("skip_bad") else []
    size: Sequence[int] = manifest.teacher_size or (data.get("image_shape") or ())[:2]
    if len(set(size)) == 1 and not any("size" in each for each in teachers):  # else each has its own
        words += ["--teacher-size", str(size[0])]
    words += ["--views", space.name, "--num-views", str(manifest.num_views)]
    words += ["--view-seed", str(space.seed)] if space.seed else []
    out = cache.path.with_name(f"{cache.path.stem}-{encoding}{cache.path.suffix}")
    return f"dump again: {shlex.join(['bancache', 'dump', *words, '--out', str(out)])} {option}"
