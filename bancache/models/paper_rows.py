"""The rows of the paper's Tables 1 and 2 with their printed parameter counts, in the paper's order."""

from __future__ import annotations

_THIRD = "has a third 1x1, inferred from the printed count"
_FITTED = "inner widths fitted: no sensible rule gives the printed counts"
# Millions of parameters as printed (the paper truncates), and a note on the count.
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
    "match-densenet-14-1-3": (
        80.5,
        "cannot be reproduced: exactly twice the count, taken for an error of the paper",
    ),
    "match-densenet-28-1-2": (13.7, ""),
    "match-densenet-42-1-2": (12.9, ""),
    "match-densenet-56-1-2": (12.6, ""),
}
