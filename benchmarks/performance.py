"""Where is bancache faster, equal or slower? This writes docs/performance.md from the committed result lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
_EQUAL = 0.03  # a median this near to 1 is called equal, and one whose quartiles lie on both sides of 1

# (benchmark, ratio, what is compared with what, whether ours is the numerator)
_ROWS = (
    ("views", "dataloader / render", "views, beside a torchvision DataLoader", False),
    (
        "views",
        "whole-epoch loader / (render + addresses)",
        "views and their addresses, beside a loader that augments the whole epoch at once",
        False,
    ),
    (
        "targets",
        "torch.load / cache, numba",
        "an entry by numba, beside one file a sample read by torch.load",
        False,
    ),
    ("targets", "torch.load / cache", "the same by torch alone", False),
    (
        "targets",
        "seek and read / cache, numba",
        "an entry by numba, beside records of the ten largest classes",
        False,
    ),
    ("targets", "seek and read / cache", "the same by torch alone", False),
    (
        "loss",
        "loss / eager kl_div + cross_entropy, 100 classes",
        "the loss, beside torch's, 100 classes",
        True,
    ),
    ("loss", "loss / eager kl_div + cross_entropy, 1000 classes", "the same, 1,000 classes", True),
    (
        "online",
        "teacher online / cached",
        "a step of ResNet-8, beside one with a ResNet-20 teacher online",
        False,
    ),
    (
        "step",
        "step with data in place / step with cached data",
        "a step of ResNet-20 with cached data, beside one on data in place",
        False,
    ),
    ("dump", "bare teacher / whole dump", "a whole dump, beside the bare ResNet-20 teacher", False),
    ("views", "memcpy / render, numba", "views by numba, beside copying their bytes", False),
    ("views", "memcpy / render", "views by torch alone, beside copying their bytes", False),
    (
        "targets",
        "memcpy / cache, numba, 100 classes",
        "answers by numba, beside copying their bytes, 100 classes",
        False,
    ),
    ("targets", "memcpy / cache, numba, 1000 classes", "the same, 1,000 classes", False),
    (
        "targets",
        "memcpy / cache, 100 classes",
        "answers by torch alone, beside copying their bytes, 100 classes",
        False,
    ),
    ("targets", "memcpy / cache, 1000 classes", "the same, 1,000 classes", False),
    ("slabs", "default profile / memmap", "a slab from disk, beside mapping a raw file", True),
    ("slabs", "mmap profile / memmap", "a slab of the profile mmap, beside mapping a raw file", True),
    ("slabs", "compact profile / memmap", "a slab of the profile compact, beside mapping a raw file", True),
)
_GPU = (
    "views, answers and loss on a GPU",
    "a student's epoch on a GPU, beside the same step on data in place",
    "a dump on a GPU, beside the bare teacher",
)
_NAMES = ("views", "targets", "slabs", "loss", "step", "dump", "online", "scale")


def last_lines(name: str) -> list[dict[str, Any]]:
    """Return the lines of a benchmark's last saved run."""
    path = RESULTS / f"{name}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if line["time"] == lines[-1]["time"]]


def verdict(target: str, value: dict[str, float]) -> str:
    """Return whether a ratio meets its target, or that its median may lie on either side.

    >>> verdict(">= 0.5", {"median": 0.6, "median_low": 0.55, "median_high": 0.65})
    'met'
    """
    sign, _, number = target.partition(" ")
    if sign not in (">=", "<="):
        return "no target"
    bound = float(number)
    low, high = value["median_low"], value["median_high"]
    if (low >= bound) if sign == ">=" else (high <= bound):
        return "met"
    if (high < bound) if sign == ">=" else (low > bound):
        return "missed"
    return "not told apart"


def page() -> str:
    """Return the whole page."""
    return "\n".join([_INTRODUCTION, *_comparison(), "", _TARGETS, *_targets(), "", _GROWTH, *_growth(), ""])


def _comparison() -> list[str]:
    """Return the rows with three columns: faster, equal, slower or unknown."""
    rows = ["| what | faster | equal | slower or unknown |", "| --- | ---: | ---: | ---: |"]
    for name, ratio, what, inverted in _ROWS:
        found = [line for line in last_lines(name) if line.get("ratio") == ratio]
        if not found:
            rows.append(f"| {what} | | | unknown: not measured yet |")
            continue
        value = found[-1]["value"]
        low, middle, high = (value[key] for key in ("low", "median", "high"))
        if inverted:
            low, middle, high = 1 / high, 1 / middle, 1 / low
        text = f"{middle:.3g} ({low:.3g} to {high:.3g})"
        column = 1 if abs(middle - 1) <= _EQUAL or low <= 1 <= high else 0 if middle > 1 else 2
        rows.append(f"| {what} |" + "".join(f" {text if i == column else ''} |" for i in range(3)))
    return rows + [f"| {what} | | | unknown: never run on a GPU |" for what in _GPU]


def _targets() -> list[str]:
    rows = [
        "| ratio of times | median | its interval | quartiles | runs | aimed at | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name in _NAMES:
        for line in last_lines(name):
            if "ratio" in line and isinstance(line["value"], dict):
                v = line["value"]
                runs = f"{v['runs']} x {v['rounds']}" if "rounds" in v else v["runs"]
                rows.append(
                    f"| {line['ratio']} | {v['median']:.3g} | {v['median_low']:.3g} to {v['median_high']:.3g} | "
                    f"{v['low']:.3g} to {v['high']:.3g} | {runs} | {line['target']} | {verdict(str(line['target']), v)} |"
                )
    return rows


def _growth() -> list[str]:
    rows = [
        "| samples | dump, µs an entry | its memory, MB | loader, µs an entry | its memory, MB | bytes an entry |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    return rows + [
        f"| {line['samples']:,} | {line['dump_microseconds_an_entry']:.2f} | {line['dump_extra_megabytes']:.0f} | "
        f"{line['load_microseconds_an_entry']:.2f} | {max(0, line['load_extra_megabytes']):.0f} | "
        f"{line['bytes_an_entry']:.1f} |"
        for line in last_lines("scale")
        if "samples" in line
    ]


_INTRODUCTION = """\
# Performance

Written by `python -m benchmarks.performance` from the lines under `benchmarks/results/`; a test compares. On a CPU: one
thread, CPU time, variants interleaved in one process, medians with quartiles, most of them over several processes, of each
the median of its rounds (`benchmarks.processes`). Other memory goes through the caches before each variant; what differs by
a per cent at most, steps beside steps and a dump beside its teacher, takes turns instead. The lines name the machine, the
versions and the commit. The machine also ran other things, so ratios are what counts. `bancache bench --cache gen0.zarr`
measures the same on yours.

How many times as fast as what it is compared with (1 is equal; a copy of the bytes is a bound, not a rival):
"""

_TARGETS = """\
## Against what was aimed at

`met` and `missed` need the whole interval of the median on one side: 95 % of such intervals hold the median of endlessly
many runs, whatever their distribution (of fewer than six it is all of them). Of `9 x 25` runs, nine processes had 25 rounds
each, and nine medians are what the interval and the quartiles are of.
"""

_GROWTH = """\
## As a cache grows

One view index, a teacher that costs nothing, tiny images; each size in a process of its own. Memory is the peak beyond the images,
their padded copies and, for the loader, the view index that is shown. What still grows are the labels in a dump, eight bytes a
sample, and beside them in the loader the order of an epoch and its views.
"""


def main() -> None:
    """Rewrite the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
