"""What is refused at once: outputs that cannot be written or are in use, and other settings than those of a run that began.

Nothing here needs torch, whose import takes seconds, or the images, whose decoding takes longer.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bancache.errors import UsageError
from bancache.models.names import canonical_name, parse_name
from bancache.system import configs
from bancache.system.address import Address
from bancache.system.device import check_device_name
from bancache.system.files import require_writable
from bancache.system.locks import HOLDER, lock_path, require_free
from bancache.training.recipe import Recipe, given, own_name
from bancache.training.recorded import header_of, recorded_run, require_same
from bancache_cli import options
from bancache_cli.inputs import count_views
from bancache_cli.recipes import RecipeOptions
from bancache_cli.teachers import TeacherOptions

if TYPE_CHECKING:
    from bancache.training.own_loss import OwnLoss


def require_file(out: Path, *, alone: bool = True) -> None:
    """Check that a file can be written; if this process is ``alone``, also that no other process writes it."""
    if out.is_dir():
        raise UsageError(f"{out} is a folder", hint=f"name a file, such as {out / 'gen0.pt'}")
    require_writable(out)
    if alone:
        require_free(lock_path(out), out)


def require_teacher(file: Path | None) -> None:
    """Check that a teacher's checkpoint is there, if one is named."""
    if file is not None and not file.exists():
        raise UsageError(f"the teacher {file} is missing", hint="name its checkpoint with --teacher FILE")


def asked_for(
    model: options.ModelOptions, recipe: RecipeOptions, chosen: Recipe, views: str | None, **more: Any
) -> dict[str, Any]:
    """Return the settings that the user named, with the keys of a checkpoint's header; check model and views."""
    named = given({**recipe.changes(), **more})
    if recipe.recipe is not None:
        preset = configs.to_dict(chosen)
        # These follow the device, the data and the memory unless they are given.
        named = {
            key: value for key, value in preset.items() if key not in ("amp", "batch_size", "compile", "lr")
        } | named
    asked: dict[str, Any] = {"recipe": named}
    if model.model is not None:
        parse_name(model.model)
        asked["architecture"] = {"name": canonical_name(model.model)}
    if views is not None:
        from bancache.views.space import ViewSpace

        space = ViewSpace.parse(views).to_dict()
        asked["view_space"] = {key: value for key, value in space.items() if key != "seed"}
    return asked


def own_loss(loss: str, named: str | None) -> OwnLoss | None:
    """Import the loss of a recipe if it is ``module:function`` and the user ``named`` it; None if it is no code.

    Raises:
        UsageError: A file names it, and the user did not; or it cannot be imported.
    """
    if own_name(loss) is None:
        return None
    if named is None:
        raise UsageError(
            f"the teacher's recipe names the loss '{loss}', which is code",
            hint=f"name it with --loss {loss}, or choose another one, such as --loss ban-l",
        )
    from bancache.training.own_loss import load_loss

    return load_loss(loss)


def recorded_views(recorded: dict[str, Any]) -> str | None:
    """Return the name of the views of a run that is under way; None if there is none."""
    from bancache.views.space import ViewSpace

    return ViewSpace.from_dict(recorded["view_space"]).name if "view_space" in recorded else None


def recorded_settings(out: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the run at ``out``; empty if there is none, or if only the training can read them.

    Raises:
        MismatchError: They differ from what the user asked for.
    """
    found = recorded_run(out)
    if found is None:
        return {}
    path, recorded = found
    now = {
        key: {**recorded[key], **v} if isinstance(v, dict) else v
        for key, v in asked.items()
        if key in recorded
    }
    require_same(now, recorded, str(path))
    return recorded


def recorded_tables(
    out: Path, asked: dict[str, Any], device: str, encoding: str | None, known: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return the tables of the run.toml of a sequence; empty if there is none. ``known`` are more values of its sequence.

    Raises:
        MismatchError: They differ from what the user asked for.
        UsageError: The folder cannot be written, or a name makes no sense.
    """
    from bancache.encodings import check_encoding_name
    from bancache.report.settings import SETTINGS
    from bancache.study.sequence_folder import recorded_settings
    from bancache.views.space import ViewSpace

    require_writable(out / SETTINGS)
    check_device_name(device)
    if encoding is not None:
        check_encoding_name(encoding)
    tables = {"recipe": asked["recipe"], "model": asked.get("architecture", {})}
    views = ViewSpace.from_dict({**asked["view_space"], "seed": 0}).name if "view_space" in asked else None
    sequence = {**known, **given({"encoding": encoding, "views": views})}
    return recorded_settings(out, {**tables, "sequence": sequence})


def require_cache(
    out: Path,
    teacher: TeacherOptions,
    views: options.SeededViewOptions,
    store: options.StoreOptions,
    data: options.TeacherDataOptions,
    batch_size: int | None,
    *,
    alone: bool,
    overwrite: bool,
) -> None:
    """Check that a dump can write a cache, and that one that is there was made with the settings that the user named.

    Of teachers, only the first is looked at, if it is a checkpoint. ``alone`` means that no other process may write there.

    Raises:
        BusyError: Another process writes there, and this one is ``alone``.
        MismatchError: The cache was made with other settings.
        UsageError: No cache can be made there, or a name or a number makes no sense.
    """
    from bancache.cache.directory import require_ours
    from bancache.cache.manifest_io import find_manifest, manifest_of
    from bancache.cache.opening import HELP
    from bancache.encodings import check_encoding_name
    from bancache.views.space import ViewSpace

    header, single = header_of(Path(teacher.teacher[0])) or {}, len(teacher.teacher) == 1
    name = views.views or header.get("views")
    space = ViewSpace.parse(name, seed=views.view_seed) if name else None
    if store.encoding is not None:
        check_encoding_name(store.encoding)
    num_views = count_views(views.num_views, space, None) if space and views.num_views else None
    if batch_size is not None and batch_size < 1:
        raise UsageError(
            f"the batch size must be at least 1, not {batch_size}", hint="give --batch-size 1 or more"
        )
    if not isinstance(out, Address):
        require_ours(out)
        require_writable(out)
        if alone:
            require_free(out / HOLDER, out, hint=HELP)
    found = None if overwrite else find_manifest(out)
    if found is None:
        return
    stored = manifest_of(found)
    compute = given({"batch_size": batch_size, "precision": teacher.precision})
    trained_on = header.get("data_fingerprint") if data == options.TeacherDataOptions() else None
    stored.require_same(
        replace(
            stored,
            num_views=num_views or stored.num_views,
            dataset={**stored.dataset, **given({"fingerprint": trained_on})},
            teacher={**stored.teacher, **given({"fingerprint": header.get("weights") if single else None})},
            view_space=space.to_dict() if space else stored.view_space,
            encoding={**stored.encoding, **given({"name": store.encoding})},
            profile=store.profile,
            compute={**stored.compute, **compute},
        )
    )
