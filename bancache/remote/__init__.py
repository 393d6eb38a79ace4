"""Copies of caches in object stores: pushed and pulled."""
