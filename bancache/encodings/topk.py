"""The k largest classes, and the total probability of all others, which is spread evenly over them.

Most published teacher caches hold this. It serves very many classes, and caches imported from elsewhere.

With the rest stored, the probabilities of the kept classes are exact at temperature 1. At another temperature they
depend on logits that were not kept; those are taken as equal, which is an approximation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bancache.encodings.dense import to_float16
from bancache.encodings.fields import FieldSpec
from bancache.errors import UsageError


@dataclass(frozen=True)
class TopK:
    """The ``k`` largest of ``classes`` classes, or all of them if there are fewer."""

    classes: int
    k: int
    max_temperature = 1.0  # above it, the unknown logits of the classes that were not kept matter

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"top-{self.k} keeps nothing", hint="use topk-1 or more")

    @property
    def name(self) -> str:
        """``topk-10`` and the like."""
        return f"topk-{self.k}"

    @property
    def kept(self) -> int:
        """How many classes are kept of a row."""
        return min(self.k, self.classes)

    def fields(self) -> tuple[FieldSpec, ...]:
        """Return ``index``, the classes by descending logit; ``logits`` minus the largest; ``rest``."""
        return (
            FieldSpec("index", str(self._integer).removeprefix("torch."), (self.kept,), ("rank",)),
            FieldSpec("logits", "float16", (self.kept,), ("rank",)),
            FieldSpec("rest", "float32", (), ()),
        )

    def encode(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``index`` and ``logits`` (B, k) and ``rest`` (B,); too wide a row is a NonFiniteError."""
        largest, index = logits.topk(self.kept, dim=1)
        outside = logits.scatter(1, index, -torch.inf)
        rest = torch.exp(outside.logsumexp(dim=1) - logits.logsumexp(dim=1))
        return {
            "index": index.to(self._integer),
            "logits": to_float16(largest - largest[:, :1]),
            "rest": rest,
        }

    def keep(self, index: torch.Tensor, probabilities: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the fields of rows whose k largest probabilities are known, as in caches from elsewhere.

        ``index`` are the k classes of each row in any order, ``probabilities`` theirs at temperature 1, above 0;
        both (B, k). The other classes share the rest.
        """
        if index.shape[1] != self.kept:
            raise UsageError(f"top-{self.k} keeps {self.kept} classes of a row, not {index.shape[1]}")
        largest, order = probabilities.to(torch.float32).sort(dim=1, descending=True)
        logits = largest.log()
        return {
            "index": index.gather(1, order).to(self._integer),
            "logits": (logits - logits[:, :1]).to(torch.float16),
            "rest": (1 - largest.sum(dim=1)).clamp(min=0),  # rounded probabilities may sum to more than 1
        }

    def probabilities(self, fields: Mapping[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """Return the kept probabilities, and an equal share of the rest for each other class, float32 (B, C)."""
        kept = torch.softmax(fields["logits"].to(torch.float32), dim=1) * (1 - fields["rest"])[:, None]
        share = (fields["rest"] / max(1, self.classes - self.kept))[:, None]
        full = share.expand(-1, self.classes).scatter(1, fields["index"].to(torch.int64), kept)
        if temperature != 1:
            full = full.pow(1 / temperature)
        return full / full.sum(dim=1, keepdim=True)

    @property
    def _integer(self) -> torch.dtype:
        return torch.int16 if self.classes <= 1 << 15 else torch.int32

    def to_config(self) -> dict[str, Any]:
        """Return the name, the id of the format and k."""
        return {"name": self.name, "id": "topk-1", "k": self.k}
