"""A process that writes a small cache and prints each shard when it is done, for tests that kill it.

It does not import torch, so that it starts in a second.
"""

from __future__ import annotations

import sys
from pathlib import Path

from contracts.small_cache import SHARD_BYTES, SMALL_SHARD, facts, fields, make_manifest, summarize

from bancache.cache import layout
from bancache.cache.opening import open_writer
from bancache.errors import BancacheError

MANIFEST = make_manifest(num_views=8)
PROMISE = MANIFEST  # the old name, for tests elsewhere


def main() -> int:
    """Write to the folder named on the command line, and return the exit code of bancache."""
    assert SHARD_BYTES == "bancache.cache.layout._SHARD_BYTES"
    layout._SHARD_BYTES = SMALL_SHARD
    try:
        with open_writer(Path(sys.argv[1]), MANIFEST) as writer:
            if writer is not None:
                for shard in writer.pending():
                    writer.write_shard(shard, fields(MANIFEST, shard), facts(shard))
                    say(shard.index)
                writer.finish(summarize)
    except BancacheError as error:
        say(f"error: {error}")
        return error.exit_code
    say("finished")
    return 0


def say(what: object) -> None:
    """Print a line and flush it."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
