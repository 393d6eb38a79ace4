"""Views: which crops and flips of an image exist, and the pixels of each."""

from bancache.views.space import ViewSpace

__all__ = ["ViewSpace"]
