"""Models by name: the paper's rows, their families, and those of torchvision and timm.

Names are resolved without torch; it is loaded by the first call of ``build_model`` or ``share_layers``.
The list of the paper's rows with their counts is ``bancache.models.catalog.catalog()``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from bancache.models.names import canonical_name, model_names

if TYPE_CHECKING:
    from bancache.models.build import build_model
    from bancache.models.match_frame import share_layers

__all__ = ["build_model", "canonical_name", "model_names", "share_layers"]

_LATE = {"build_model": "bancache.models.build", "share_layers": "bancache.models.match_frame"}


def __getattr__(name: str) -> object:
    """Import functions that need torch on first use (PEP 562)."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)
