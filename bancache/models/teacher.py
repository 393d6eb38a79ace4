"""A teacher: a model in eval mode, the fingerprint of its weights, and the header of its checkpoint."""

from __future__ import annotations

import importlib
import logging
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from bancache.errors import CheckpointError, UsageError, is_out_of_memory
from bancache.models import build_model
from bancache.models.checkpoint import Checkpoint, PathLike, fingerprint_state, load_checkpoint, load_tensors
from bancache.models.own_input import own_input
from bancache.views.model_input import ModelInput, Normalization


@dataclass(frozen=True)
class Teacher:
    """A model that computes teacher logits.

    Attributes:
        model: In eval mode, on its device, in channels_last memory.
        fingerprint: sha256 of its weights.
        architecture: Name and arguments of the model, as JSON values.
        header: Data, views, recipe and lineage from its checkpoint; empty for a third-party model.
        path: Its name as given: a path, or ``torchvision:NAME`` and the like.
        precision: ``float32``, or ``bfloat16`` for a forward pass under autocast.
        input: The images that it was trained on; None if nothing records them.
        outputs: What the model returns: ``logits``, or ``probabilities``, whose logarithms are then the logits. None
            if nobody said so: a dump then refuses what looks like probabilities.
    """

    model: nn.Module
    fingerprint: str
    architecture: dict[str, Any]
    header: dict[str, Any] = field(default_factory=dict)
    path: str = ""
    precision: str = "float32"
    input: ModelInput | None = None
    outputs: str | None = None

    @torch.no_grad()
    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 (B, classes), for normalized images, float32 (B, C, H, W).

        A third-party model that cannot take them, or returns no row of logits for each, is a UsageError.
        """
        try:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                logits = self.model(images)
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            # An error of bancache's own models is a bug and keeps its traceback.
            if self.header or is_out_of_memory(error):
                raise
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            dynamic = (
                "export it with dynamic_shapes=({0: torch.export.Dim('batch')},), or give its --batch-size"
            )
            hint = (
                dynamic if self.path.endswith(".pt2") else "give images of the size it takes (--image-size)"
            )
            what = f"teacher '{self.path}' cannot take images {tuple(images.shape)}: {first}"
            raise UsageError(what, hint=hint) from error
        if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(images):
            raise UsageError(
                f"teacher '{self.path}' does not return one row of logits per image",
                hint="use a model that returns a tensor (batch, classes)",
            )
        # A model may return the same memory every time, as captured graphs do.
        logits = logits.to(torch.float32, copy=True)
        if self.outputs == "probabilities":
            logits.clamp_min_(torch.finfo(torch.float32).tiny).log_()  # a probability may be rounded to 0
        return logits


class OnlineTargets:
    """Soft targets from a teacher that runs at every step: the baseline that a cache replaces."""

    def __init__(self, teacher: Teacher, *, temperature: float = 1.0) -> None:
        self._teacher, self._temperature = teacher, temperature

    def begin(self, view_index: int, following: int) -> None:
        """Do nothing: a teacher needs no preparation."""

    def probabilities(self, samples: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return the teacher's probabilities for ``images``, float32 (B, classes)."""
        return torch.softmax(self._teacher.logits(images) / self._temperature, dim=1)


def build_from(checkpoint: Checkpoint) -> nn.Module:
    """Build the model of a checkpoint and load its weights, on the CPU; CheckpointError if they do not fit it."""
    model = build_model(**arguments_of(checkpoint.header["architecture"]))
    _load_state(model, checkpoint.state, "checkpoint")
    return model


def arguments_of(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of ``build_model`` for an architecture read from JSON."""
    return {**architecture, "image_size": tuple(architecture["image_size"])}


def is_third_party(spec: str) -> bool:
    """Whether a name means a third-party model, which does not record its data, and no checkpoint.

    >>> is_third_party("gen0.pt"), is_third_party("torchvision:resnet18"), is_third_party("model.pt2")
    (False, True, True)
    """
    return spec.endswith(".pt2") or (":" in spec and not Path(spec).exists())


def load_teacher(
    spec: PathLike,
    *,
    device: torch.device,
    weights: PathLike | None = None,
    precision: str = "float32",
    shape: tuple[int, int, int, int] | None = None,
    outputs: str | None = None,
) -> Teacher:
    """Load a teacher: a checkpoint of bancache or a third-party model.

    ``spec`` may execute code, so it must come from the user. For a name read from a file use
    ``load_checkpoint_teacher``, which executes none.

    Args:
        spec: A checkpoint (``gen0.pt``), or ``torchvision:NAME`` or ``timm:NAME`` with ``weights``. Two kinds execute
            code: ``module:function``, which is imported and called, and a torch.export archive (``model.pt2``), which
            torch reads with pickle.
        device: Where the teacher runs.
        weights: A file with a state dict, for torchvision, timm and ``module:function``.
        precision: Of the forward pass, ``float32`` or ``bfloat16``.
        shape: (classes, channels, height, width) of the data; third-party models but ``.pt2`` need it.
        outputs: What a third-party model returns, ``logits`` or ``probabilities``; None if unknown.

    Raises:
        CheckpointError: A file is missing, damaged, would execute code, or does not fit the model.
        MissingExtraError: The name needs timm and it is not installed.
        UsageError: There is no such model, or ``weights`` or ``shape`` do not belong to it.
    """
    spec = os.fspath(spec)
    if weights is not None and (spec.endswith(".pt2") or not is_third_party(spec)):
        what = f"--weights {os.fspath(weights)}, but {spec} has its own weights"
        raise UsageError(what, hint="leave out --weights")
    if not is_third_party(spec):
        return load_checkpoint_teacher(Path(spec), device=device, precision=precision)
    if spec.endswith(".pt2"):
        model, architecture, known = _load_export(Path(spec)), {"name": spec}, None
    else:
        if shape is None:
            raise UsageError(f"teacher '{spec}' does not know its data", hint="add --data and --views")
        model, architecture = _build_third_party(spec, weights, shape)
        known = own_input(spec, model, shape[1])
        model.eval()  # exported graphs have no modes
    fingerprint = fingerprint_state(model.state_dict())
    return Teacher(_frozen_on(model, device), fingerprint, architecture, {}, spec, precision, known, outputs)


def load_checkpoint_teacher(path: PathLike, *, device: torch.device, precision: str = "float32") -> Teacher:
    """Load a teacher from a checkpoint of bancache, whatever the file's name; no code is executed.

    Use it for every path that was read from a file: ``module:function`` is then a missing file, and ``model.pt2``
    not a checkpoint. Errors are those of ``load_checkpoint``.
    """
    checkpoint = load_checkpoint(path)
    model = build_from(checkpoint).eval()
    header, fingerprint = checkpoint.header, checkpoint.fingerprint
    model, architecture = _frozen_on(model, device), header["architecture"]
    height, width = architecture["image_size"]
    trained_on = ModelInput(
        (height, width), Normalization.from_dict(header["normalisation"]), "its checkpoint"
    )
    return Teacher(model, fingerprint, architecture, header, str(path), precision, trained_on)


def _frozen_on(model: nn.Module, device: torch.device) -> nn.Module:
    model.requires_grad_(False)
    # torch's stubs do not know that ``to`` takes a memory format.
    return cast(nn.Module, model.to(device=device, memory_format=torch.channels_last))  # type: ignore[call-overload]


def _build_third_party(
    spec: str, weights: PathLike | None, shape: tuple[int, int, int, int]
) -> tuple[nn.Module, dict[str, Any]]:
    classes, channels, height, width = shape
    if spec.startswith(("torchvision:", "timm:")):
        architecture = {"name": spec, "classes": classes, "channels": channels, "image_size": [height, width]}
        model = build_model(**arguments_of(architecture))
        if weights is None:
            raise UsageError(f"teacher '{spec}' has no weights", hint="add --weights FILE")
    else:
        architecture = {"name": spec}
        model = _call_factory(spec)
    if weights is not None:
        state = load_tensors(weights)
        state = state.get("state_dict", state) if isinstance(state, dict) else state
        if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
            raise CheckpointError(
                f"{weights} is not a state dict", hint="save it with torch.save(model.state_dict(), ...)"
            )
        _load_state(model, state, str(weights))
    return model, architecture


def _call_factory(spec: str) -> nn.Module:
    """Import ``module:function`` and call it: the user's code, named by the user."""
    module_name, _, function = spec.partition(":")
    try:
        model = getattr(importlib.import_module(module_name), function)()
    except (ImportError, AttributeError) as error:
        hint = "name a checkpoint, torchvision:NAME, timm:NAME or module:function"
        raise UsageError(f"no teacher '{spec}': {error}", hint=hint) from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"'{spec}' returned {type(model).__name__}, not a torch module")
    return model


def _load_export(path: Path) -> nn.Module:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    log = logging.getLogger("torch.export")
    try:
        log.disabled = True  # it would print a traceback beside our error
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
        raise CheckpointError(f"{name} does not fit the model {type(model).__name__}: {first}") from error
