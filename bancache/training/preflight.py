"""What must hold before a run's first step: one writer, one run for all its processes, splits that fit each other."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bancache.errors import DataError, UsageError
from bancache.models.checkpoint import Checkpoint, load_checkpoint
from bancache.sources.base import ImageSet
from bancache.system.files import make_directory, remove_temporaries
from bancache.system.fingerprint import fingerprint_json
from bancache.system.locks import exclusive_file
from bancache.training.distributed import ProcessGroup
from bancache.training.options import TrainerOptions
from bancache.training.run import Run


@contextmanager
def held(place: TrainerOptions, ranks: ProcessGroup) -> Iterator[None]:
    """Be the only run that makes ``out``: one process holds it for all of a run's."""
    with ExitStack() as stack:
        with ranks.led() as leads:
            if leads:
                make_directory(place.out.parent)
                stack.enter_context(exclusive_file(place.out))
                remove_temporaries(place.out.parent, f"{glob.escape(place.out.name)}.*")
        yield


def require_one_run(run: Run, ranks: ProcessGroup) -> None:
    """Refuse processes that would each train something else."""
    if run.ranks != ranks.place.count:
        raise UsageError(f"a run of {run.ranks} processes cannot be carried out by {ranks.place.count}")
    ranks.require_same("the run", int(fingerprint_json(run.to_dict())[:15], 16))


def require_alike(data: ImageSet, test: ImageSet) -> None:
    """Refuse splits that one net cannot take: each is opened for itself."""
    if data.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"training images are {data.images.shape[1:]}, test images {test.images.shape[1:]} "
            "(height, width, channels)",
            hint="give both splits one size with --image-size, and one kind of color",
        )
    if data.classes != test.classes:
        raise DataError(
            f"training images have {len(data.classes)} classes, test images {len(test.classes)} or other names",
            hint="both splits need the same classes in the same order",
        )


def finished_by(run: Run, place: TrainerOptions) -> Checkpoint | None:
    """Return the checkpoint at ``out`` if this very run left it."""
    if place.overwrite or not place.out.exists():
        return None
    checkpoint = load_checkpoint(place.out)
    run.require_same(checkpoint.header, str(place.out))
    place.state_path.unlink(missing_ok=True)
    return checkpoint
