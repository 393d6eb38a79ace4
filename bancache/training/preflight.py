"""Checks before a run's first step: one writer per checkpoint, one run in all processes, matching splits, memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bancache.cache.reader import Cache
from bancache.errors import DataError, UsageError
from bancache.loader.cache_targets import decoded_bytes
from bancache.models.checkpoint import Checkpoint, load_checkpoint
from bancache.sources.image_set import ImageSet
from bancache.system.batch_memory import free_bytes
from bancache.system.files import make_directory, remove_temporaries
from bancache.system.fingerprint import fingerprint_json
from bancache.system.locks import exclusive_file
from bancache.system.progress import Progress
from bancache.system.stored import StoredImages, sketch
from bancache.system.wording import count
from bancache.training.distributed import ProcessGroup
from bancache.training.memory import training_needs
from bancache.training.options import TrainerOptions
from bancache.training.run import Run
from bancache.views import ViewSpace

# By fingerprint, so that the models of a study look at the pixels once, and no data is kept alive.
_REPEATED: dict[tuple[str, str], tuple[int, int]] = {}


@contextmanager
def exclusive_output(options: TrainerOptions, group: ProcessGroup) -> Iterator[None]:
    """Lock ``options.out`` for this run; the main process holds the lock."""
    path = options.checkpoint_path
    with ExitStack() as stack:
        with group.main_first() as is_main:
            if is_main:
                make_directory(path.parent)
                stack.enter_context(exclusive_file(path))
                for name in (path, options.state_path, options.log_path):
                    remove_temporaries(path.parent, name.name)
        yield


def require_one_run(run: Run, group: ProcessGroup) -> None:
    """Check that all processes train the same run."""
    if run.ranks != group.rank.count:
        raise UsageError(f"this run needs {count(run.ranks, 'process')}, not {group.rank.count}")
    group.require_same("the run", int(fingerprint_json(run.to_dict())[:15], 16))


def require_matching_splits(data: ImageSet, test: ImageSet, views: ViewSpace) -> None:
    """Check that one model can take both splits, which are opened separately, with these views."""
    of_one_size = views.needs_one_size and data.uniform and test.uniform
    ours, theirs = (one.shape if of_one_size else (one.channels,) for one in (data, test))
    if ours != theirs:
        raise DataError(
            f"training images are {ours}, test images {theirs} ({'height, width, ' * of_one_size}channels)",
            hint="give both splits one size with --image-size, and the same number of channels",
        )
    if data.classes != test.classes:
        raise DataError(
            f"training images have {len(data.classes)} classes, test images {len(test.classes)} or other names",
            hint="both splits need the same classes in the same order",
        )


def say_repeated_images(data: ImageSet, test: ImageSet, progress: Progress) -> None:
    """Note training images that are in two classes, and warn if over 1 % of the test images are training images, too.

    Nothing is said of a pack that is streamed: opening it compares what it holds.
    """
    if any(isinstance(s.images, StoredImages) and s.images.sketches is None for s in (data, test)):
        return
    splits = data.fingerprint, test.fingerprint
    if splits not in _REPEATED:
        known: dict[int, int] = {}
        images = zip(_sketches(data), data.labels.tolist(), strict=True)
        torn = sum(known.setdefault(seen, label) != label for seen, label in images)
        _REPEATED[splits] = torn, sum(seen in known for seen in _sketches(test))
    torn, shared = _REPEATED[splits]
    if torn:
        progress.note(f"{count(torn, 'training image')} with the same pixels as one of another class")
    if shared > len(test) // 100:
        progress.warn(
            f"among the training images too: {shared:,} of {count(len(test), 'test image')}, so test figures say little"
        )


def _sketches(images: ImageSet) -> list[int]:
    if isinstance(images.images, StoredImages):
        return [] if images.images.sketches is None else images.images.sketches.tolist()
    return [sketch(image) for image in images.images]


def require_memory(
    run: Run, data: ImageSet, test: ImageSet, options: TrainerOptions, cache: Cache | None
) -> None:
    """Check that this process's share of a step fits the memory beside the images and the soft targets."""
    needs = training_needs(run.architecture, run.recipe, data, test, run.space, options.device)
    free = free_bytes(options.device)
    if cache is not None and options.placement in ("auto", "device", "cpu"):
        # Soft targets stay in memory if they fit half of it.
        targets = decoded_bytes(cache)
        free -= targets if targets <= free // 2 else 0
    share = min(run.recipe.batch_size, len(data)) // run.ranks
    height, width = run.architecture["image_size"]
    needs.require(share, free, f"training {run.architecture['name']} on images of {height} x {width}")


def finished_checkpoint(run: Run, options: TrainerOptions) -> Checkpoint | None:
    """Return the checkpoint at ``options.out`` if this run has finished it, else None."""
    path = options.checkpoint_path
    if options.overwrite or not path.exists():
        return None
    checkpoint = load_checkpoint(path)
    run.require_same(checkpoint.header, str(path))
    options.state_path.unlink(missing_ok=True)
    return checkpoint
