"""A checkpoint of a student that was trained in a loop of its user's own."""

from __future__ import annotations

import os
from typing import Any

import msgspec
from torch import nn

from bancache.cache.reader import Cache, open_cache
from bancache.errors import UsageError
from bancache.loader.open import student_normalization
from bancache.models import checkpoint
from bancache.models.build import build_skeleton, built_as
from bancache.models.header import check_header
from bancache.models.misfit import compare
from bancache.models.names import canonical_name
from bancache.models.teacher import arguments_of
from bancache.sources.spec import DataSpec
from bancache.training.run import ancestors
from bancache.views import ViewSpace

_FITS = (
    "train a model of build_model, or give the name under which it builds this one, such as name='torchvision:resnet18'; "
    "any other model can be a teacher as module:function"
)


def save_checkpoint(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | Cache,
    name: str | None = None,
    size: int | None = None,
    accuracy: float | None = None,
    data: str | None = None,
) -> str:
    """Write a student of a cache as a checkpoint that ``dump`` and ``evaluate`` take, and return the sha256 of its weights.

    Data, classes, normalization, views, generation and lineage are those of the cache. The file appears whole or not at
    all. A model is found inside ``torch.compile``, ``DistributedDataParallel`` and ``AveragedModel``.

    Args:
        model: A model that ``build_model`` made, or one that has the same weights by name and shape.
        path: The file to write.
        cache: The cache that the model was trained from, or its directory.
        name: What ``build_model`` calls the model, if it was made otherwise.
        size: Height and width of the images in pixels, as given to ``open_loader``; by default as the teacher saw them.
        accuracy: On the test split, 0 to 1, if it is known; ``dump`` warns if its own figures are far below.
        data: Where the images are now, if they moved.

    Raises:
        MismatchError: The images are not those of the cache.
        StorageError: The file cannot be written.
        UsageError: ``build_model`` cannot build this model, or it does not fit the cache.
    """
    cache, model = cache if isinstance(cache, Cache) else open_cache(cache), _unwrapped(model)
    manifest, state = cache.manifest, model.state_dict()
    spec = DataSpec.from_dict(manifest.dataset["spec"]).moved(data)
    images = spec.open("train")
    cache.require_dataset(images.fingerprint)
    space = ViewSpace.from_dict(manifest.view_space)
    shape = manifest.teacher_size or images.shape[:2]
    parameters = list(model.parameters())
    header: dict[str, Any] = {
        "architecture": {
            **_architecture(model, name, manifest.classes, images.channels),
            "image_size": list(shape) if size is None else [size, size],
        },
        "classes": list(manifest.dataset["classes"]),
        "data": spec.resolved().to_dict(),
        "data_as_typed": spec.source,
        "data_fingerprint": images.fingerprint,
        "normalisation": student_normalization(cache, images).to_dict(),
        "view_space": manifest.view_space,
        "views": space.name,
        "num_views": manifest.num_views,
        "cache": cache.digest,
        "generation": manifest.teacher["generation"] + 1,
        "lineage": list(ancestors(cache)),
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trainable": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "history": [],
        **({} if accuracy is None else {"test": {"accuracy": accuracy}}),
    }
    _require_fitting(header, {key: tuple(tensor.shape) for key, tensor in state.items()})
    return checkpoint.save_checkpoint(path, state, header)


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside what torch wraps around it."""
    while built_as(model) is None:
        inner = getattr(model, "_orig_mod", getattr(model, "module", None))
        if not isinstance(inner, nn.Module):
            break
        model = inner
    return model


def _architecture(model: nn.Module, name: str | None, classes: int, channels: int) -> dict[str, Any]:
    if name is not None:
        return {"name": canonical_name(name), "classes": classes, "channels": channels, "dropout": 0.0}
    found = built_as(model)
    if found is None:
        raise UsageError(f"nothing says how to build this {type(model).__name__} again", hint=_FITS)
    if (found["classes"], found["channels"]) != (classes, channels):
        raise UsageError(
            f"the model is for {found['classes']} classes and {found['channels']} channels, the cache has {classes} and "
            f"{channels}",
            hint="name the cache that it was trained from",
        )
    return found


def _require_fitting(header: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    """Require that the file can be loaded: that ``build_model`` makes a model of these shapes."""
    try:
        check_header({**header, "weights": "unknown"})
    except msgspec.ValidationError as error:
        raise UsageError(
            f"no checkpoint can say this: {error}", hint="accuracy is a share, 0 to 1"
        ) from error
    expected = build_skeleton(**arguments_of(header["architecture"])).state_dict()
    if why := compare({key: tuple(tensor.shape) for key, tensor in expected.items()}, shapes):
        raise UsageError(f"the model is no {header['architecture']['name']}: {why}", hint=_FITS)
