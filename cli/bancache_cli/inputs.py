"""What models see: at which size, and how many views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bancache.errors import UsageError
from bancache_cli.options import ModelOptions

if TYPE_CHECKING:
    from bancache.sources.image_set import ImageSet
    from bancache.system.progress import Progress
    from bancache.views import ViewSpace


def input_size(
    model: ModelOptions,
    data: ImageSet,
    reporter: Progress,
    teachers: tuple[int, int] | None = None,
    recorded: Mapping[str, Any] | None = None,
    *,
    tuned: bool = False,
) -> tuple[int, int]:
    """Return height and width of a model's input: as asked for, else the teacher's, else that of the images.

    Pictures that differ in size have that of the run that began with the ``recorded`` architecture, else that of most
    of them; a model that is ``tuned`` has the size at which models are usually trained.
    """
    from bancache.training.defaults import PHOTOGRAPH, default_side

    if model.size is not None:
        return model.size, model.size
    if teachers is not None:
        if not data.uniform or teachers != (data.height, data.width):
            height, width = teachers
            reporter.note(f"the model sees views of {height} x {width} pixels, as its teacher did (--size)")
        return teachers
    if data.uniform:
        return data.height, data.width
    side = PHOTOGRAPH if tuned else default_side(data.images)
    height, width = (recorded or {}).get("image_size") or (side, side)
    reporter.note(f"pictures differ in size: views of {height} x {width} pixels are made of them (--size)")
    return height, width


def teacher_size(name: str, asked: int | None, header: dict[str, Any], images: ImageSet) -> tuple[int, int]:
    """Return height and width of a teacher's input: as asked for, else its own, else that of the images.

    ``header`` is that of a checkpoint, empty for other models.
    """
    from bancache.models.own_input import own_size

    if asked is not None:
        return asked, asked
    own = header["architecture"]["image_size"] if header else own_size(name)
    if own is not None:
        return own[0], own[1]
    if not images.uniform:
        pictures: Any = images.images
        raise UsageError(
            f"nothing says at which size teacher '{name}' sees pictures, they are {pictures.span}",
            hint="add --teacher-size 224",
        )
    return images.height, images.width


def like_teacher(
    own: dict[str, Any], seen: tuple[int, int] | None, recorded: dict[str, Any] | None
) -> dict[str, Any]:
    """Return a teacher's architecture at the size at which it has ``seen`` the views of its cache, None if at their own.

    A run that an older version began, whose ``recorded`` architecture has the size of the teacher's training, keeps that.
    """
    begun = recorded is not None and recorded.get("image_size") == own.get("image_size")
    return own if begun or seen is None else {**own, "image_size": list(seen)}


def count_views(text: str | None, space: ViewSpace, recipe: dict[str, Any] | None) -> int:
    """Return the number that ``--num-views`` means; without it, the number that suits the teacher's recipe."""
    from bancache.training.defaults import default_num_views
    from bancache.views.space import check_num_views

    if text is None:
        return default_num_views(space, recipe)
    if text == "all" and space.is_endless:
        raise UsageError(
            f"views '{space.name}' are drawn anew at every view index, so there is no end of them",
            hint="give a number, such as --num-views 50",
        )
    if text == "all":
        return space.size
    if not text.isdecimal():
        every = "50" if space.is_endless else f"1 to {space.size}, or all"
        raise UsageError(f"--num-views is a number or all, not '{text}'", hint=f"use --num-views {every}")
    check_num_views(int(text), space)
    return int(text)
