"""``python -m bancache_cli``, for launchers that start modules."""

import sys

from bancache_cli import main

if __name__ == "__main__":
    sys.exit(main())
