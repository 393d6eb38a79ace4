"""Copies of caches in object stores: pushed, pulled, or mirrored while a dump writes."""
