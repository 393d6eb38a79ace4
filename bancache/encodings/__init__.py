"""Encodings of teacher logits as stored bytes, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from bancache.encodings.fields import FieldSpec
from bancache.errors import CacheDamagedError, UsageError

if TYPE_CHECKING:
    import torch

_ROOT_NAME = re.compile(r"root(?P<root>[1-9]\d?)(?:-(?P<levels>\d+))?")
_TOPK_NAME = re.compile(r"topk-(?P<k>[1-9]\d{0,4})")
KNOWN = (
    "root4",
    "root8",
    "root12",
    "root2-64",
    "root2-256",
    "root2-1024",
    "float32",
    "float16",
    "float16-shift",
    "bfloat16",
    "int8",
    "topk-10",
)
_FEW_CLASSES = 256  # at these root8 is enough up to temperature 4


class Encoding(Protocol):
    """Turns logits into the arrays that a cache stores, and these arrays into probabilities.

    ``tests/contracts/encoding.py`` tests the contract for every encoding.
    Rows are independent of one another: encoding a batch gives the same bytes as encoding its rows.
    """

    @property
    def name(self) -> str:
        """What ``--encoding`` calls it."""

    @property
    def max_temperature(self) -> float:
        """The highest temperature at which its probabilities are accurate enough; infinity without a limit."""

    def fields(self) -> tuple[FieldSpec, ...]:
        """Return the arrays of one (sample, view) pair."""

    def encode(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the fields of float32 logits (B, classes), each (B, *shape), on the logits' device."""

    def probabilities(self, fields: Mapping[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """Return softmax(logits / temperature) within quantization error, float32 (B, classes), rows summing to 1."""

    def to_config(self) -> dict[str, Any]:
        """Return JSON values from which ``from_config`` builds an equal encoding."""


def parse_encoding(name: str, classes: int) -> Encoding:
    """Build the encoding called ``root4``, ``root2-1024``, ``float16`` or the like; UsageError if there is none."""
    if name in ("float32", "float16", "bfloat16", "float16-shift"):
        from bancache.encodings.dense import Dense

        return Dense(classes, name)
    if name == "int8":
        from bancache.encodings.int8 import Int8Rows

        return Int8Rows(classes)
    if match := _TOPK_NAME.fullmatch(name):
        from bancache.encodings.topk import TopK

        return TopK(classes, int(match["k"]))
    if match := _ROOT_NAME.fullmatch(name):
        from bancache.encodings.root import Root

        return Root(classes, root=int(match["root"]), levels=int(match["levels"] or 256))
    raise _unknown(name)


def check_encoding_name(name: str) -> None:
    """Raise ``UsageError`` if no encoding has this name; without torch."""
    if name not in KNOWN and not _TOPK_NAME.fullmatch(name) and not _ROOT_NAME.fullmatch(name):
        raise _unknown(name)


def _unknown(name: str) -> UsageError:
    return UsageError(f"no encoding is called '{name}'", hint=f"use one of {', '.join(KNOWN)}")


def default_encoding(temperature: float, classes: int) -> str:
    """Return the name of the smallest encoding that is accurate enough for training at ``temperature``.

    With more classes, more of a soft distribution lies in classes that few levels cannot tell apart
    (docs/encodings.md has the measurements).
    """
    if temperature <= 1:
        return "root4"
    if temperature > 4:
        return "float16"
    return "root8" if temperature <= 2 or classes <= _FEW_CLASSES else "root12"


def from_config(config: dict[str, Any], classes: int, fields: Sequence[FieldSpec] | None = None) -> Encoding:
    """Build the encoding that ``to_config`` described; UsageError if it is unknown or of a newer version.

    Arrays other than its own in ``fields``, those of a cache, are a CacheDamagedError.
    """
    encoding = parse_encoding(str(config.get("name")), classes)
    if encoding.to_config() != config:
        raise UsageError(
            f"encoding {config} is not '{encoding.name}' of this version: {encoding.to_config()}",
            hint="upgrade bancache",
        )
    if fields is not None and tuple(fields) != encoding.fields():
        raise CacheDamagedError(f"the manifest's arrays are not those of encoding '{encoding.name}'")
    return encoding
