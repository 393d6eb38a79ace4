"""A process that writes a small cache and says of each region, on stdout, that it is done: to be hit by anything.

Without torch, so that it starts in a second.
"""

from __future__ import annotations

import sys
from pathlib import Path

from contracts.small_cache import REGION_BYTES, SMALL_REGION, facts, fields, manifest, summarise

from bancache.cache import layout
from bancache.cache.opening import open_writer
from bancache.errors import BancacheError

PROMISE = manifest(slots=8)


def main() -> int:
    """Write to the folder that is named, and return the exit code that the command line would."""
    assert REGION_BYTES == "bancache.cache.layout._REGION_BYTES"
    layout._REGION_BYTES = SMALL_REGION
    try:
        with open_writer(Path(sys.argv[1]), PROMISE) as writer:
            if writer is not None:
                for region in writer.pending():
                    writer.write_region(region, fields(PROMISE, region), facts(region))
                    say(region.index)
                writer.finish(summarise)
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
