"""Logits of models on a test set, and what they score: alone, together, and against each other."""
