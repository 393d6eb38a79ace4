"""The same pictures with other pixels: what may have read them otherwise than where they were read before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bancache.errors import DataError


def why_other_pixels(spec: Mapping[str, Any], before: str | None) -> str:
    """Return why the same pictures may have other pixels here than where Pillow's version was ``before``; "" if nothing says so.

    ``before`` is None if it is not recorded. ``spec`` is that of the data: pixels that are stored as they are do not depend on Pillow.
    """
    if not str(spec.get("source")).startswith(("folder:", "parquet:")) and spec.get("image_size") is None:
        return ""
    import PIL

    from bancache.sources.golden import require_decoder

    try:
        require_decoder()
    except DataError as error:
        return str(error)
    if before is None and spec.get("image_size") is not None:
        return f"Pillow {PIL.__version__} resizes pictures here, and another version may give other pixels"
    if before in (None, PIL.__version__):
        return ""
    return f"Pillow {before} read them for the cache, Pillow {PIL.__version__} reads them here, and their pixels may differ"
