"""Models by name: the paper's rows, their families, and those of torchvision and timm.

Names are resolved without torch; it is loaded by the first call of ``build_model`` or ``share_layers``.
The list of the paper's rows with their counts is ``bancache.models.catalog.catalog()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bancache.models.names import canonical_name, model_names
from bancache.system.late import late

if TYPE_CHECKING:
    from bancache.models.build import build_model
    from bancache.models.match_frame import share_layers

__all__ = ["build_model", "canonical_name", "model_names", "share_layers"]

__getattr__ = late(__name__, {"build_model": "build", "share_layers": "match_frame"})
