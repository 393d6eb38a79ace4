"""What a view is and who sees it when; free of torch, so that a reader of a cache needs numpy alone."""

from bancache.views.plan import Plan
from bancache.views.space import ViewSpace

__all__ = ["Plan", "ViewSpace"]
