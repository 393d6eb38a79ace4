"""``bancache push`` and ``bancache pull``: copies of caches in object stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bancache_cli import console, options, origin

Address = Annotated[str, typer.Argument(help="Where the copy lies, such as s3://bucket/gen0.zarr.")]


def push(
    cache: origin.CachePath,
    address: Address,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another cache that lies there.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Copy a cache, finished or not, to an object store; what is there already is not sent again.

    The manifest goes last, so what lies there never claims more than it has. Killed at any instant, the same command
    goes on. Credentials, shard and endpoint are those of the `AWS_` variables.

    Example: `bancache push gen0.zarr s3://bucket/gen0.zarr`
    """
    from bancache.remote.bucket import Bucket
    from bancache.remote.push import push as send
    from bancache.system.signals import interruptible

    with interruptible() as interrupt:
        reporter = console.Reporter(quiet=quiet)
        pushed = send(cache, Bucket(address), overwrite=overwrite, progress=reporter, interrupt=interrupt)
    _tell(address, pushed.complete, "sent", pushed.moved, pushed.kept, pushed.bytes, as_json=as_json)


def pull(
    address: Address,
    out: Annotated[Path, typer.Argument(help="The folder to make, or to complete.")],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Bring a cache from an object store, every file checked against its manifest.

    An unfinished one goes on with the `bancache dump` that began it. In a folder that holds a part of the cache, or a damaged
    one, only what is missing or damaged is fetched.

    Example: `bancache pull s3://bucket/gen0.zarr gen0.zarr`
    """
    from bancache.remote.bucket import Bucket
    from bancache.remote.pull import pull as fetch
    from bancache.system.signals import interruptible

    with interruptible() as interrupt:
        reporter = console.Reporter(quiet=quiet)
        pulled = fetch(Bucket(address), out, progress=reporter, interrupt=interrupt)
    _tell(str(out), pulled.complete, "fetched", pulled.moved, pulled.kept, pulled.bytes, as_json=as_json)


def _tell(where: str, complete: bool, verb: str, moved: int, kept: int, size: int, *, as_json: bool) -> None:
    if as_json:
        console.show_json({"out": where, "complete": complete, verb: moved, "kept": kept, "bytes": size})
        return
    state = "complete" if complete else "unfinished"
    console.say(f"{where}: {state}; {moved:,} files {verb} ({console.bytes_text(size)}), {kept:,} were there")
