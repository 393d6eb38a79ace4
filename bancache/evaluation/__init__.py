"""Predictions of models on a test split, and their scores: alone, as an ensemble, and against each other."""

from bancache.evaluation.checkpoints import Evaluation, evaluate
from bancache.evaluation.predict import Scores

__all__ = ["Evaluation", "Scores", "evaluate"]
