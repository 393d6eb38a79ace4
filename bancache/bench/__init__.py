"""Times each part of training from a cache on this machine, next to the best possible time."""
