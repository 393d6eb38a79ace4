"""A teacher: a model in eval mode, the fingerprint of its weights, and the header of its checkpoint."""

from __future__ import annotations

import logging
import os
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bancache.errors import BancacheError, CheckpointError, UsageError, is_out_of_memory
from bancache.models import build_model, user_code
from bancache.models.answers import describe, find_logits
from bancache.models.build import build_skeleton
from bancache.models.checkpoint import Checkpoint, PathLike, fingerprint_state, load_checkpoint
from bancache.models.misfit import compare
from bancache.models.names import LIBRARIES, is_third_party, parse_name
from bancache.models.own_input import own_input
from bancache.models.weights import load_weights
from bancache.system.device import choose_device
from bancache.system.progress import Progress
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
        members: The teachers of an ensemble; ``combine`` says of what it is the mean, ``probabilities`` or ``logits``.
        sizes: Height and width in pixels at which each member sees views; empty if all see the same.
    """

    model: nn.Module
    fingerprint: str
    architecture: dict[str, Any]
    header: dict[str, Any] = field(default_factory=dict)
    path: str = ""
    precision: str = "float32"
    input: ModelInput | None = None
    outputs: str | None = None
    members: tuple[Teacher, ...] = ()
    combine: str = ""
    sizes: tuple[tuple[int, int], ...] = ()

    @property
    def input_dtype(self) -> torch.dtype:
        """What its first layer makes of float32 images: bfloat16 if it is a convolution under autocast.

        Code of a user may compute with the pixels first, in float32.
        """
        own = is_third_party(self.path) and not self.path.startswith(("torchvision:", "timm:"))
        half = self.precision == "bfloat16" and not own and not self.members
        return torch.bfloat16 if half else torch.float32

    @torch.no_grad()
    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 (B, classes), for normalized images (B, C, H, W), float32 or of ``input_dtype``.

        A third-party model that cannot take them, or returns no row of logits for each, is a UsageError.
        """
        # Weights that need no gradient are never cached; a cache would belong to one captured graph.
        in_half = self.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=in_half, cache_enabled=False):
            return self.answer(images)

    def answer(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits as ``logits`` does, in the precision of the caller."""
        try:
            with user_code.to_stderr():
                answer = self.model(images)
        except (Exception, SystemExit) as error:
            # An error of bancache's own models is a bug and keeps its traceback.
            if self.header or isinstance(error, BancacheError) or is_out_of_memory(error):
                raise
            raise self._failed(images, error) from error
        logits = find_logits(answer, len(images))
        if logits is None:
            raise UsageError(
                f"teacher '{self.path}' returns {describe(answer)} for {len(images)} images, and no row of logits for each",
                hint="use a model that returns a tensor (batch, classes), or wrap it in a module:function that does",
            )
        # A model may return the same memory every time, as captured graphs do.
        logits = logits.to(torch.float32, copy=True)
        if self.outputs == "probabilities":
            logits.clamp_min_(torch.finfo(torch.float32).tiny).log_()  # a probability may be rounded to 0
        return logits

    @property
    def of_batches(self) -> list[str]:
        """The model's batch normalizations, by class and name, that normalize by the statistics of each batch."""
        found = (each for each in self.model.named_modules() if isinstance(each[1], _BatchNorm))
        return [f"{type(m).__name__} '{name}'" for name, m in found if m.training or m.running_mean is None]

    def _failed(self, images: torch.Tensor, error: BaseException) -> UsageError:
        """Return the error of a model that raised one, with what to do about its cause."""
        said = str(error)
        half = {str(p.dtype) for p in self.model.parameters() if p.is_floating_point()} - {"torch.float32"}
        if half and "type" in said:
            hint = f"its weights are {min(half)}: call .float() on it; --precision bfloat16 makes it fast"
        elif re.search(r"CUDA|NVIDIA|same device", said):
            hint = "it chooses a device itself: leave out .cuda() and .to(), and use --device"
        elif self.path.endswith(".pt2"):
            hint = "export it with dynamic_shapes=({0: torch.export.Dim('batch')},), or give its --batch-size"
        elif re.search(r"\b(shapes?|sizes?|height|width|channels?|dimensions?)\b", said):
            hint = "show it views of the size it takes (--teacher-size), or resize the images (--image-size)"
        else:
            hint = user_code.HINT
        what = f"teacher '{self.path}' cannot take images {tuple(images.shape)}"
        return UsageError(f"{what}: {user_code.describe(error)}", hint=hint)


class OnlineTargets:
    """Soft targets from a teacher that runs at every step: the baseline that a cache replaces."""

    def __init__(self, teacher: Teacher, *, temperature: float = 1.0) -> None:
        self._teacher, self._temperature = teacher, temperature

    def begin(self, view_index: int, following: int) -> None:
        """Do nothing: a teacher needs no preparation."""

    def probabilities(self, samples: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return the teacher's probabilities for ``images``, float32 (B, classes)."""
        return torch.softmax(self._teacher.logits(images) / self._temperature, dim=1)


def build_from(checkpoint: Checkpoint, name: PathLike = "the checkpoint") -> nn.Module:
    """Build the model of a checkpoint and load its weights, on the CPU; CheckpointError if they do not fit it.

    Names and shapes are compared before memory is taken for the model.
    """
    architecture, state = checkpoint.header["architecture"], checkpoint.state
    try:
        parsed = parse_name(architecture["name"])
        # Each of its units has a tensor; a skeleton of a thousand times as many would take minutes.
        if parsed.family not in {*LIBRARIES, "convnet"} and parsed.sizes[0] > len(state):
            why = f"its {len(state)} tensors are too few for {parsed}"
        else:
            expected = build_skeleton(**arguments_of(architecture)).state_dict()
            why = compare(*({key: tuple(each[key].shape) for key in each} for each in (expected, state)))
    except UsageError as error:
        raise CheckpointError(f"{name} does not fit: {error}", hint=error.hint) from error
    if why:
        raise CheckpointError(
            f"{name} does not fit {architecture['name']}: {why}", hint="train it again, or restore the file"
        )
    model = build_model(**arguments_of(architecture))
    model.load_state_dict(dict(state))
    return model


def arguments_of(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of ``build_model`` for an architecture read from JSON."""
    return {**architecture, "image_size": tuple(architecture["image_size"])}


def load_teacher(
    spec: PathLike,
    *,
    device: torch.device | str,
    weights: PathLike | None = None,
    precision: str = "float32",
    shape: tuple[int, int, int, int] | None = None,
    outputs: str | None = None,
    progress: Progress | None = None,
) -> Teacher:
    """Load a teacher: a checkpoint of bancache or a third-party model.

    ``spec`` may execute code, so it must come from the user. For a name read from a file use
    ``load_checkpoint_teacher``, which executes none.

    Args:
        spec: A checkpoint (``gen0.pt``), or ``torchvision:NAME`` or ``timm:NAME`` with ``weights``. Two kinds execute
            code: ``module:function``, which is imported and called, and a torch.export archive (``model.pt2``), which
            torch reads with pickle.
        device: Where the teacher runs: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        weights: A file with weights, for torchvision, timm and ``module:function``; ``FILE:NAME`` for one set in it.
        precision: Of the forward pass, ``float32`` or ``bfloat16``.
        shape: (classes, channels, height, width) of the data; third-party models but ``.pt2`` need it.
        outputs: What a third-party model returns, ``logits`` or ``probabilities``; None if unknown.
        progress: Is told which of several sets of weights was taken.

    Raises:
        CheckpointError: A file is missing, damaged, would execute code, or does not fit the model.
        MissingExtraError: The name needs timm and it is not installed.
        UsageError: There is no such model, precision or kind of outputs, the function fails, or ``weights`` or
            ``shape`` do not belong to it.
    """
    spec, device = os.fspath(spec), choose_device(device) if isinstance(device, str) else device
    for value, words in ((precision, ("float32", "bfloat16")), (outputs, (None, "logits", "probabilities"))):
        if value not in words:
            raise UsageError(
                f"a teacher's precision or outputs are not {value!r}", hint=f"use one of {words}"
            )
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
        model, architecture = _build_third_party(spec, weights, shape, progress)
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
    model = build_from(checkpoint, path).eval()
    header, fingerprint = checkpoint.header, checkpoint.fingerprint
    model, architecture = _frozen_on(model, device), header["architecture"]
    return Teacher(model, fingerprint, architecture, header, str(path), precision, checkpoint_input(header))


def checkpoint_input(header: dict[str, Any]) -> ModelInput:
    """Return the images that the model of a checkpoint was trained on."""
    height, width = header["architecture"]["image_size"]
    return ModelInput((height, width), Normalization.from_dict(header["normalisation"]), "its checkpoint")


def _frozen_on(model: nn.Module, device: torch.device) -> nn.Module:
    for parameter in model.parameters():  # scripted modules have no requires_grad_
        parameter.requires_grad_(False)
    # torch's stubs do not know that ``to`` takes a memory format.
    return cast(nn.Module, model.to(device=device, memory_format=torch.channels_last))  # type: ignore[call-overload]


def _build_third_party(
    spec: str, weights: PathLike | None, shape: tuple[int, int, int, int], progress: Progress | None
) -> tuple[nn.Module, dict[str, Any]]:
    classes, channels, height, width = shape
    if spec.startswith(("torchvision:", "timm:")):
        if weights is None:
            raise UsageError(f"teacher '{spec}' has no weights", hint="add --weights FILE")
        architecture = {"name": spec, "classes": classes, "channels": channels, "image_size": [height, width]}
        model = build_model(**arguments_of(architecture))
        if progress and spec.removeprefix("torchvision:") in {"googlenet", "inception_v3"}:
            progress.note(
                f"{spec} is built with transform_input off; a model tuned from torchvision's own weights has it on "
                "and needs a module:function"
            )
    else:
        architecture = {"name": spec}
        model = user_code.call(spec)
    if weights is not None:
        load_weights(model, spec, os.fspath(weights), progress)
    if not spec.startswith(("torchvision:", "timm:")):
        user_code.require_whole(model, spec)
        if progress and not model.state_dict():
            progress.warn(
                f"{spec} has no weights that torch sees, so a cache cannot tell it from another teacher"
            )
    return model, architecture


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
