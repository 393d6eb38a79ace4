"""Views: which crops, flips and other changes of a picture exist, and the pixels of each."""

from bancache.views.counters import Counters
from bancache.views.lattice import Lattice
from bancache.views.space import ViewSpace

__all__ = ["Counters", "Lattice", "ViewSpace"]
