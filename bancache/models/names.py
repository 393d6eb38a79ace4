"""Names of models: family, sizes and aliases, and the nearest names to an unknown one.

    densenet-bc-D-G     DenseNet-BC of depth D and growth G; D is rounded down to 6n + 4
    wrn-D-K             Wide-ResNet of depth D = 6n + 4, K times as wide
    preresnet-D         pre-activation ResNet of bottlenecks, D = 9n + 2
    resnet-D            ResNet for CIFAR of basic units, D = 6n + 2
    convnet-W           three convolutions of W, 2W and 4W channels, for images from 8x8 up
    match-wrn-N-R, match-preresnet-N-R, match-densenet-A-B-C
                        the paper's students with the hidden shapes of densenet-bc-90-60;
                        "@densenet-bc-D-G" at the end takes those of another DenseNet
    torchvision:NAME, timm:NAME

Aliases: the paper's own spelling of a family (``Wide-ResNet-28-10``), and ``densenet-bc-116-33`` and
``-106-33`` for ``densenet-bc-112-33``, which is one model of true depth 106. A ``preresnet-D`` whose depth is
6n + 2 and not 9n + 2 is refused: the same name would mean basic units at one depth and bottlenecks at another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path

from bancache.errors import UsageError

MATCH_TEACHER = "densenet-bc-90-60"
LIBRARIES = ("torchvision", "timm")
# The weights that a library publishes for its model, in the place of a file.
PRETRAINED = "pretrained"

_THIRD = "has a third 1x1, inferred from the printed count"
_FITTED = "inner widths fitted: no sensible rule gives the printed counts"
# The rows of the paper's Tables 1 and 2, in its order: millions of parameters as printed (truncated), a note on the count.
PAPER_ROWS: dict[str, tuple[float, str]] = {
    "densenet-bc-112-33": (6.3, "also written 116-33; the printed count is that of depth 106"),
    "densenet-bc-90-60": (16.1, _THIRD),
    "densenet-bc-80-80": (22.4, _THIRD),
    "densenet-bc-80-120": (50.4, _THIRD),
    "preresnet-1001": (10.2, "the printed count leaves BatchNorm out"),
    "wrn-28-10": (36.0, ""),
    "wrn-28-20": (146.0, ""),
    "match-preresnet-14-0.5": (7.3, f"{_FITTED}; printed without the shared layers"),
    "match-preresnet-14-1": (17.7, f"{_FITTED}; printed without the shared layers"),
    "match-wrn-1-1": (20.9, "printed without the shared layers"),
    "match-wrn-2-1": (43.1, "printed without the shared layers"),
    "match-wrn-4-0.5": (24.3, "printed without the shared layers"),
    "match-wrn-4-1": (87.3, "printed without the shared layers"),
    "match-densenet-7-1-2": (21.2, ""),
    "match-densenet-14-0.5-1": (5.1, ""),
    "match-densenet-14-0.75-1.5": (10.1, ""),
    "match-densenet-14-1-3": (80.5, "cannot be reproduced: exactly twice the count, taken for a misprint"),
    "match-densenet-28-1-2": (13.7, ""),
    "match-densenet-42-1-2": (12.9, ""),
    "match-densenet-56-1-2": (12.6, ""),
}
_OTHER_NAMES = (
    *(f"densenet-bc-{sizes}" for sizes in ("40-12", "100-12", "250-24", "190-40")),
    *(f"wrn-{sizes}" for sizes in ("10-1", "16-1", "16-2", "16-4", "28-1", "28-2", "28-4", "28-5", "40-2")),
    *(f"preresnet-{depth}" for depth in (110, 164)),
    *(f"resnet-{depth}" for depth in (8, 14, 20, 32, 44, 56, 110)),
    *("convnet-16", "torchvision:resnet18", "timm:resnet18"),
)

# Family: number of integers in its name, and number of decimals after them.
_SIZES = {
    "densenet-bc": (2, 0),
    "wrn": (2, 0),
    "preresnet": (1, 0),
    "resnet": (1, 0),
    "convnet": (1, 0),
    "match-wrn": (1, 1),
    "match-preresnet": (1, 1),
    "match-densenet": (1, 2),
}
_SPELLINGS = {
    "densenetbc": "densenet-bc",
    "wide-resnet": "wrn",
    "pre-resnet": "preresnet",
    "match-wide-resnet": "match-wrn",
    "match-pre-resnet": "match-preresnet",
}
# Family: (step, rest) of a depth of step * n + rest.
_DEPTHS = {"densenet-bc": (6, 4), "wrn": (6, 4), "preresnet": (9, 2), "resnet": (6, 2)}
_SAME = {"densenet-bc-106-33": "densenet-bc-112-33", "densenet-bc-116-33": "densenet-bc-112-33"}
# Rows of the paper whose names keep the printed depth, although it is not 6n + 4.
_PRINTED = {"densenet-bc-112-33", "densenet-bc-90-60", "densenet-bc-80-80", "densenet-bc-80-120"}


@dataclass(frozen=True)
class ModelName:
    """A parsed name.

    Attributes:
        family: Such as ``wrn``, or the library for ``torchvision:`` and ``timm:``.
        sizes: The numbers of the name, exact.
        within: The library's own name of the model, or the DenseNet whose hidden shapes a match model has.
    """

    family: str
    sizes: tuple[Fraction, ...] = ()
    within: str = ""

    def __str__(self) -> str:
        if self.family in LIBRARIES:
            return f"{self.family}:{self.within}"
        sizes = "-".join(f"{float(size):.10g}" for size in self.sizes)
        frame = "" if self.within in {"", MATCH_TEACHER} else f"@{self.within}"
        return f"{self.family}-{sizes}{frame}"


def is_third_party(spec: str) -> bool:
    """Whether a name means a third-party model, which does not record its data, and no checkpoint.

    >>> is_third_party("gen0.pt"), is_third_party("torchvision:resnet18"), is_third_party("model.pt2")
    (False, True, True)
    """
    return spec.endswith(".pt2") or (":" in spec and not Path(spec).exists())


def split_weights(weights: str) -> tuple[Path, str]:
    """Return the file and the name of a set of weights in it, which may be empty.

    >>> split_weights("last.pth.tar:state_dict")[1]
    'state_dict'
    """
    file, colon, name = weights.rpartition(":")
    # An address such as https://… names no set of a file.
    is_set = colon and not name.startswith("/") and not Path(weights).exists()
    return (Path(file), name) if is_set else (Path(weights), "")


def model_names() -> tuple[str, ...]:
    """Return the paper's rows in its order, then well-known members of each family."""
    return (*PAPER_ROWS, *_OTHER_NAMES)


def canonical_name(name: str) -> str:
    """Return the canonical spelling of a model's name: aliases and a DenseNet's depth are resolved.

    >>> canonical_name("Wide-ResNet-28-10"), canonical_name("densenet-bc-116-33")
    ('wrn-28-10', 'densenet-bc-112-33')
    >>> canonical_name("densenet-bc-101-12"), canonical_name("match-wrn-4-0.50")
    ('densenet-bc-100-12', 'match-wrn-4-0.5')
    """
    return str(parse_name(name))


def parse_name(name: str) -> ModelName:
    """Parse a name; the top of this file lists the accepted ones, the hint of a UsageError the nearest."""
    library, colon, within = name.strip().partition(":")
    if colon and library.lower() in LIBRARIES and within:
        return ModelName(library.lower(), within=within)
    text, _, frame = name.strip().lower().partition("@")
    text = "convnet-16" if text == "convnet" else text
    family, sizes = _split(text)
    if family not in _SIZES or len(sizes) != sum(_SIZES[family]) or (frame and "match" not in family):
        raise _unknown(name)
    if any(size.denominator != 1 for size in sizes[: _SIZES[family][0]]) or min(sizes) <= 0:
        raise _unknown(name)
    if family in _DEPTHS:
        return ModelName(family, (_depth(family, sizes), *sizes[1:]))
    return ModelName(family, sizes, _frame(name, frame) if "match" in family else "")


def _split(text: str) -> tuple[str, tuple[Fraction, ...]]:
    """Return the family in its canonical spelling and the numbers after it; no numbers if the text has none."""
    found = re.fullmatch(r"(.*?)((?:-[0-9]{1,5}(?:\.[0-9]{1,4})?)+)", text)
    if not found:
        return text, ()
    family = found[1]
    return _SPELLINGS.get(family, family), tuple(Fraction(size) for size in found[2][1:].split("-"))


def _depth(family: str, sizes: tuple[Fraction, ...]) -> Fraction:
    """Return the depth of the canonical name; a depth that the family lacks is a UsageError."""
    step, rest = _DEPTHS[family]
    name = str(ModelName(family, sizes))
    if name in _SAME or name in _PRINTED:
        return parse_name(_SAME[name]).sizes[0] if name in _SAME else sizes[0]
    units = (int(sizes[0]) - rest) // step
    true = step * units + rest
    if units >= 1 and (true == sizes[0] or family == "densenet-bc"):
        return Fraction(true)
    near = sorted({max(units, 1), max(units + 1, 1)})
    names = [str(ModelName(family, (Fraction(step * n + rest), *sizes[1:]))) for n in near]
    raise UsageError(
        f"{name}: {sizes[0]} is no depth of {family}, which are {step}n + {rest} with n of at least 1",
        hint=f"the nearest: {' or '.join(names)}",
    )


def _frame(name: str, frame: str) -> str:
    """Return the canonical name of the DenseNet whose hidden shapes a match model has."""
    teacher = parse_name(frame or MATCH_TEACHER)
    if teacher.family == "densenet-bc":
        return str(teacher)
    raise UsageError(
        f"{name}: a match model follows a DenseNet, and {teacher} is none",
        hint="end the name with a DenseNet, such as @densenet-bc-40-12, or with none for the paper's",
    )


def _unknown(name: str) -> UsageError:
    """Return the error for an unknown name, with the nearest ones."""
    near = get_close_matches(name.strip().lower(), model_names(), n=3, cutoff=0.5)
    families = "wrn-D-K, densenet-bc-D-G, preresnet-D, resnet-D, convnet-W, match-wrn-N-R, torchvision:NAME"
    hint = f"the nearest: {', '.join(near)}" if near else f"the families: {families}"
    if re.fullmatch(r"(?=.*\d)[\w.]{1,60}", name):  # such as resnet18
        hint = f"did you mean torchvision:{name} or timm:{name}? {hint}"
    return UsageError(f"no model is called {name!r}", hint=f"{hint}; `bancache models` lists the paper's")
