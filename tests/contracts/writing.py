"""A process that writes a small cache and says of each shard, on stdout, that it is done: to be hit by anything.

Without torch, so that it starts in a second.
"""

from __future__ import annotations

import sys
from pathlib import Path

from contracts.small_cache import SHARD_BYTES, SMALL_SHARD, facts, fields, manifest, summarize

from bancache.cache import layout
from bancache.cache.opening import open_writer
from bancache.errors import BancacheError

PROMISE = manifest(num_views=8)


def main() -> int:
    """Write to the folder that is named, and return the exit code that the command line would."""
    assert SHARD_BYTES == "bancache.cache.layout._SHARD_BYTES"
    layout._SHARD_BYTES = SMALL_SHARD
    try:
        with open_writer(Path(sys.argv[1]), PROMISE) as writer:
            if writer is not None:
                for shard in writer.pending():
                    writer.write_shard(shard, fields(PROMISE, shard), facts(shard))
                    say(shard.index)
                writer.finish(summarize)
    except BancacheError as error:
        say(f"error: {error}")
        return error.exit_code
    say("finished")
    return 0


def say(what: object) -> None:
    """Write a line that is out before anything else happens."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
