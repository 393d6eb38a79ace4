"""``bancache push`` and ``bancache pull``: copies of caches in object stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from bancache.system.wording import count
from bancache_cli import console, options

if TYPE_CHECKING:
    from bancache.remote.transfer import Transferred

Address = Annotated[str, Argument(help="Address of the copy, such as s3://bucket/gen0.zarr.")]


def push(
    *,
    cache: options.CachePath,
    address: Address,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace another cache at the address.")] = False,
    output: options.OutputOptions,
) -> None:
    """Copy a cache, complete or not, to an object store; files that are already there are not sent again.

    The manifest goes last, so what lies there never claims more than it has. Killed at any instant, the same command
    goes on. Credentials, region and endpoint are those of the `AWS_` variables.

    Example: `bancache push gen0.zarr s3://bucket/gen0.zarr`
    """
    from bancache.remote.push import push as send
    from bancache.system.bucket import Bucket
    from bancache.system.signals import interruptible

    with interruptible() as interrupt:
        reporter = output.reporter()
        pushed = send(cache, Bucket(address), overwrite=overwrite, progress=reporter, interrupt=interrupt)
    _report(address, "sent", pushed, output)


def pull(
    *,
    address: Address,
    out: Annotated[Path, Argument(help="Folder to create or to complete.")],
    output: options.OutputOptions,
) -> None:
    """Copy a cache from an object store, and check every file against its manifest.

    An incomplete cache can be completed by the same `bancache dump` command. If the folder holds a part of the
    cache, only missing and damaged files are fetched.

    Example: `bancache pull s3://bucket/gen0.zarr gen0.zarr`
    """
    from bancache.remote.pull import pull as fetch
    from bancache.system.bucket import Bucket
    from bancache.system.signals import interruptible

    with interruptible() as interrupt:
        reporter = output.reporter()
        pulled = fetch(Bucket(address), out, progress=reporter, interrupt=interrupt)
    _report(str(out), "fetched", pulled, output)


def _report(where: str, verb: str, done: Transferred, output: options.OutputOptions) -> None:
    complete, moved, kept, size = done.complete, done.moved, done.kept, done.bytes
    state = "complete" if complete else "incomplete"
    output.show(
        {"out": where, "complete": complete, verb: moved, "kept": kept, "bytes": size},
        f"{where}: {state}; {count(moved, 'file')} {verb} ({console.bytes_text(size)}), {kept:,} already there",
    )
