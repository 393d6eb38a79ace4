"""A teacher: a net in eval mode, the fingerprint of its weights, and what it knows of its own training."""

from __future__ import annotations

import importlib
import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from bancache.errors import CheckpointError, UsageError, is_out_of_memory
from bancache.models import build_model
from bancache.models.checkpoint import Checkpoint, fingerprint_state, load_checkpoint, load_tensors


@dataclass(frozen=True)
class Teacher:
    """A net that answers.

    Attributes:
        model: In eval mode, on its device, in channels_last memory.
        fingerprint: sha256 of its weights.
        architecture: Name and arguments of the net, as JSON values.
        header: What its checkpoint says of data, views, recipe and lineage; empty for a foreign net.
        path: Where it came from, as typed.
        precision: ``float32``, or ``bfloat16`` to run under autocast.
    """

    model: nn.Module
    fingerprint: str
    architecture: dict[str, Any]
    header: dict[str, Any] = field(default_factory=dict)
    path: str = ""
    precision: str = "float32"

    @torch.no_grad()
    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits float32 (B, classes) for normalized images float32 (B, C, H, W)."""
        with (
            _named_refusals(self, images),
            torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"),
        ):
            answer = self.model(images)
        if not isinstance(answer, torch.Tensor) or answer.ndim != 2 or len(answer) != len(images):
            raise UsageError(f"teacher '{self.path}' does not answer with one row of logits an image")
        # A net may answer in the same memory every time, as captured graphs do, and answers are kept for a while.
        return answer.to(torch.float32, copy=True)


@contextmanager
def _named_refusals(teacher: Teacher, images: torch.Tensor) -> Iterator[None]:
    """Turn a foreign net's refusal of images into one that says which net and which images."""
    try:
        yield
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        # A net of ours takes what it was built for; anything else is a bug.
        if teacher.header or is_out_of_memory(error):
            raise
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        dynamic = "export it with dynamic_shapes=({0: torch.export.Dim('batch')},), or give its --batch-size"
        hint = dynamic if teacher.path.endswith(".pt2") else "give images of the size it takes (--image-size)"
        raise UsageError(
            f"teacher '{teacher.path}' cannot take images {tuple(images.shape)}: {first}", hint=hint
        ) from error


class OnlineTargets:
    """Answers of a teacher that is asked at every step: what a cache replaces, and what it is measured against."""

    def __init__(self, teacher: Teacher, *, temperature: float = 1.0) -> None:
        """Ask ``teacher``, whose answers are softened by ``temperature``."""
        self._teacher, self._temperature = teacher, temperature

    def begin(self, view_index: int, following: int) -> None:
        """Do nothing: a teacher is always ready."""

    def probabilities(self, samples: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return the teacher's probabilities for ``images``, float32 (B, classes)."""
        return torch.softmax(self._teacher.logits(images) / self._temperature, dim=1)


def build_from(checkpoint: Checkpoint) -> nn.Module:
    """Build the net of a checkpoint and load its weights.

    Raises:
        CheckpointError: The weights do not fit the architecture that the header names.
    """
    model = build_model(**arguments_of(checkpoint.header["architecture"]))
    _load_state(model, checkpoint.state, "checkpoint")
    return model


def arguments_of(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of ``build_model`` for an architecture read from JSON."""
    return {**architecture, "image_size": tuple(architecture["image_size"])}


def is_foreign(spec: str) -> bool:
    """Whether a teacher's name means a net from elsewhere, which knows nothing of its data.

    >>> is_foreign("gen0.pt"), is_foreign("torchvision:resnet18"), is_foreign("net.pt2")
    (False, True, True)
    """
    return spec.endswith(".pt2") or (":" in spec and not Path(spec).exists())


def load_teacher(
    spec: str,
    *,
    device: torch.device,
    weights: Path | None = None,
    precision: str = "float32",
    shape: tuple[int, int, int, int] | None = None,
) -> Teacher:
    """Load a teacher by the way it is named.

    Args:
        spec: A checkpoint of ours (``gen0.pt``); ``torchvision:NAME`` or ``timm:NAME`` with ``weights``; and
            two that run what they hold, for nets of your own: ``module:function``, which is imported and called,
            and a torch.export archive (``net.pt2``), which torch reads with pickle.
        device: Where it runs.
        weights: A file with a plain state dict; for ours and ``.pt2`` it makes no sense.
        precision: ``float32`` or ``bfloat16``.
        shape: (classes, channels, height, width) of the data, for nets that have to be built.

    Raises:
        CheckpointError: The file is missing, damaged, or would execute code.
        UsageError: The name or the combination makes no sense.

    ``spec`` may choose code, so it must come from the user. A name that was read from a file goes to
    ``load_checkpoint_teacher``, which runs none.
    """
    if not is_foreign(spec):
        if weights is not None:
            raise UsageError("a checkpoint of ours brings its own weights", hint="leave out --weights")
        return load_checkpoint_teacher(Path(spec), device=device, precision=precision)
    if spec.endswith(".pt2"):
        if weights is not None:
            raise UsageError("an exported net brings its own weights", hint="leave out --weights")
        model, architecture = _load_export(Path(spec)), {"name": spec}
    else:
        if shape is None:
            raise UsageError(f"teacher '{spec}' does not know its data", hint="add --data and --views")
        model, architecture = _build_foreign(spec, weights, shape)
        model.eval()  # an exported graph is in eval mode already and knows no other
    fingerprint = fingerprint_state(model.state_dict())
    return Teacher(_placed(model, device), fingerprint, architecture, {}, spec, precision)


def load_checkpoint_teacher(path: Path, *, device: torch.device, precision: str = "float32") -> Teacher:
    """Load a teacher from a checkpoint of ours, whatever the file is called; nothing in it is executed.

    The loader for every path that was read from a file: ``module:function`` is then a file that is missing, and
    ``net.pt2`` a file that is not a checkpoint.

    Raises:
        CheckpointError: The file is missing, damaged, not ours, or would execute code.
    """
    checkpoint = load_checkpoint(path)
    model = build_from(checkpoint).eval()
    header = checkpoint.header
    return Teacher(
        _placed(model, device), checkpoint.fingerprint, header["architecture"], header, str(path), precision
    )


def _placed(model: nn.Module, device: torch.device) -> nn.Module:
    model.requires_grad_(False)
    # torch's stubs do not know that ``to`` takes a memory format.
    return cast(nn.Module, model.to(device=device, memory_format=torch.channels_last))  # type: ignore[call-overload]


def _build_foreign(
    spec: str, weights: Path | None, shape: tuple[int, int, int, int]
) -> tuple[nn.Module, dict[str, Any]]:
    classes, channels, height, width = shape
    if spec.startswith(("torchvision:", "timm:")):
        architecture = {"name": spec, "classes": classes, "channels": channels, "image_size": [height, width]}
        model = build_model(**arguments_of(architecture))
        if weights is None:
            raise UsageError(f"teacher '{spec}' has no weights", hint="add --weights FILE")
    else:
        architecture = {"name": spec}
        model = _call(spec)
    if weights is not None:
        state = load_tensors(weights)
        state = state.get("state_dict", state) if isinstance(state, dict) else state
        if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
            raise CheckpointError(
                f"{weights} is not a state dict", hint="save it with torch.save(model.state_dict(), ...)"
            )
        _load_state(model, state, str(weights))
    return model, architecture


def _call(spec: str) -> nn.Module:
    """Import ``module:function`` and call it: code of the user's own, run because the user named it."""
    module_name, _, function = spec.partition(":")
    try:
        model = getattr(importlib.import_module(module_name), function)()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"no teacher '{spec}': {error}",
            hint="name a checkpoint, torchvision:NAME, timm:NAME or module:function",
        ) from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"'{spec}' returned {type(model).__name__}, not a torch module")
    return model


def _load_export(path: Path) -> nn.Module:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    log = logging.getLogger("torch.export")
    try:
        log.disabled = True  # it would print a traceback beside the error that says the same
        return cast(nn.Module, torch.export.load(path).module())
    except (AssertionError, KeyError, OSError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} is damaged or not a torch.export archive", hint="write it with torch.export.save"
        ) from error
    finally:
        log.disabled = False


def _load_state(model: nn.Module, state: Any, name: str) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(line.strip() for line in str(error).splitlines()[1:2])
        raise CheckpointError(f"{name} does not fit the net {type(model).__name__}: {first}") from error
