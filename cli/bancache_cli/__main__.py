"""``python -m bancache_cli``, for launchers that start modules."""

import sys

from bancache_cli import main

sys.exit(main())
