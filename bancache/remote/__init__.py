"""Copies of caches in object stores: kept safe there, and used here, where locks, renames and flushes mean something."""
