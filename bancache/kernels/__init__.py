"""Losses of a batch with their gradient in one pass, as a GPU kernel and as torch."""
