"""Where is bancache faster, equal or slower? This writes docs/performance.md from the committed result lines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks import gpu_page
from benchmarks.harness import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
_FED = "step with data in place / step with cached data"
_SHARE = re.compile(r"\(loader \+ \w+\) / ResNet-20 step")
_AIM = 0.01
# Lines before this day had numba decode and render.
_TORCH_ALONE = "2026-11-27"
_EQUAL = 0.03  # a median this near to 1 is called equal, and one whose quartiles lie on both sides of 1

# (benchmark, ratio, what is compared with what, whether ours is the numerator)
_ROWS = (
    ("step", _FED, "a step of ResNet-20 from the cache, beside the same step on a batch in place", False),
    (
        "online",
        "teacher online / cached",
        "a step of ResNet-8, beside one with a ResNet-20 teacher online",
        False,
    ),
    ("dump", "bare teacher / whole dump", "a whole dump, beside the bare ResNet-20 teacher", False),
    ("views", "dataloader / render", "views, beside a torchvision DataLoader", False),
    (
        "views",
        "whole-epoch loader / (render + view ids)",
        "views and their ids, beside a loader that augments the whole epoch at once",
        False,
    ),
    (
        "photographs",
        "torchvision / ours",
        "a JPEG decoded and changed (resized crop, RandAugment, erasing), beside torchvision in a DataLoader",
        False,
    ),
    (
        "photographs",
        "numba / pillow's resize alone",
        "resampling, mirroring and normalizing a photograph by numba, beside Pillow's resize alone",
        True,
    ),
    ("targets", "torch.load / cache", "soft targets, beside one file a sample read by torch.load", False),
    (
        "loss",
        "loss / eager kl_div + cross_entropy, 100 classes",
        "the loss, beside torch's, 100 classes",
        True,
    ),
    ("loss", "loss / eager kl_div + cross_entropy, 1000 classes", "the same, 1,000 classes", True),
    ("slabs", "mmap profile / memmap", "reading a view's targets, profile mmap, beside np.memmap", True),
    ("slabs", "default profile / memmap", "the same, profile default", True),
    ("slabs", "compact profile / memmap", "the same, profile compact", True),
    (
        "allocator",
        "a step of resnet-8, freed memory kept / by default",
        "a step of ResNet-8 where freed memory is kept, as in the commands, beside glibc's default",
        True,
    ),
    ("allocator", "a step of wrn-16-4, freed memory kept / by default", "the same, a step of WRN-16-4", True),
    ("allocator", "a dump by resnet-8, freed memory kept / by default", "the same, a dump by ResNet-8", True),
)
_NAMES = ("step", "online", "dump", "loss", "slabs", "photographs")


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
    parts = (_INTRODUCTION, share(), _COMPARISON, *_comparison(), "", *gpu_page.part())
    return "\n".join([*parts, "", _TARGETS, *_targets(), "", _GROWTH, *_growth(), "", _LARGE, *_large(), ""])


def share() -> str:
    """Return which share of a training step loader and targets take, and whether that is by torch alone."""
    found = [line for line in last_lines("step") if _SHARE.fullmatch(str(line.get("ratio")))]
    value = found[-1]["value"]
    measured = f"{value['median']:.2%} ({value['low']:.2%} to {value['high']:.2%})"
    if found[-1]["time"] < _TORCH_ALONE:
        return f"It was {measured} with numba, which is removed. By torch alone it is **not measured yet**.\n"
    verdict = (
        "met" if value["median_high"] <= _AIM else "missed" if value["median_low"] > _AIM else "undecided"
    )
    return f"Measured by torch alone: {measured}; the aim is {verdict}.\n"


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
    return rows


def _targets() -> list[str]:
    rows = [
        "| ratio of times | median | its interval | quartiles | runs | aim | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name in _NAMES:
        for line in last_lines(name):
            if "ratio" in line and isinstance(line["value"], dict) and not _SHARE.fullmatch(line["ratio"]):
                v = line["value"]
                runs = f"{v['runs']} x {v['rounds']}" if "rounds" in v else v["runs"]
                rows.append(
                    f"| {line['ratio']} | {v['median']:.3g} | {v['median_low']:.3g} to {v['median_high']:.3g} | "
                    f"{v['low']:.3g} to {v['high']:.3g} | {runs} | {line['target']} | {verdict(str(line['target']), v)} |"
                )
    return rows


def _growth() -> list[str]:
    rows = [
        "| samples | dump, µs a pair | its memory, MB | loader, µs a pair | its memory, MB | bytes a pair |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    return rows + [
        f"| {line['samples']:,} | {line['dump_microseconds_an_entry']:.2f} | {line['dump_extra_megabytes']:.0f} | "
        f"{line['load_microseconds_an_entry']:.2f} | {max(0, line['load_extra_megabytes']):.0f} | "
        f"{line['bytes_an_entry']:.1f} |"
        for line in last_lines("scale")
        if "samples" in line
    ]


def _large() -> list[str]:
    columns = (
        "files",
        "opened, MB",
        "going on, MB",
        "completing, MB",
        "open",
        "go on",
        "complete",
        "view",
        "its files",
    )
    rows = ["| views | " + " | ".join(columns) + " |", "| ---: |" + " ---: |" * len(columns)]
    for line in last_lines("large_cache"):
        if "views" not in line:
            continue
        held = (line[f"{name}_megabytes"] for name in ("open_process", "resume", "finish"))
        spent = (line.get(f"{name}_seconds") for name in ("open", "resume", "finish", "view", "plain"))
        cells = [f"{line['files']:,}", *(f"{value:.0f}" for value in held)]
        cells += ["not yet" if value is None else f"{value:.2g} s" for value in spent]
        rows.append(f"| {line['views']} | " + " | ".join(cells) + " |")
    return rows


_INTRODUCTION = """\
# Performance

`python -m benchmarks.performance` writes this page from the lines under `benchmarks/results/`; a test compares. Each line
names the machine, the versions, the commit and the command. `bancache bench --cache gen0.zarr` measures the same on your
machine.

## The aim on a CPU

The loader and the soft targets together take at most 1 % of a ResNet-20 training step on one CPU core, by torch alone.
"""

_COMPARISON = """\
More speed would not help any user: if both cost nothing, the step would be 1 % faster. Earlier versions of this page also compared
rendering and decoding with `memcpy`, and reading with seek and read. Those aims are withdrawn, and the numba code that
served them is removed: see [the log](log.md).

## On a CPU, beside other ways

One thread, CPU time. Variants run interleaved in one process, and other memory passes through the CPU caches before each. Most
figures come from several processes (`benchmarks.processes`): the median over processes of each one's median over rounds, with
quartiles. The machine also ran other programs, so only ratios count. Higher is better, 1 is equal. The rows for views and for
soft targets are of torch alone; in lines from before 27 November 2026, numba still helped the steps and the table of growth.
"""

_TARGETS = """\
## Aims and results

`met` and `missed` need the whole 95 % interval of the median on one side. `9 x 25` means nine processes with 25 rounds each;
interval and quartiles are those of the nine medians.
"""

_GROWTH = """\
## As a cache grows

One view per image, a teacher that costs nothing, tiny images; each size in a process of its own. Memory is the peak beyond the
images, their padded copies and, for the loader, the view that is shown. A dump keeps the labels (eight bytes a
sample), and puts all samples in order for its probe; the loader also keeps the order of an epoch and its view ids. A pair is one (sample, view).
"""

_LARGE = """\
## Caches of ImageNet's size

1,281,167 samples, 1,000 classes, encoding root4, made up by `benchmarks/large_cache.py`: real codes in the first
view, rows that are all alike in the others, so that the cache fits a disk. Aims: at most 30,000 files, opened in 2 s and 200 MB
(the whole process). A dump that lacks one shard goes on after comparing sizes; before the cache is complete, it reads every file
that it did not write itself. Its memory is what it takes beyond its libraries. The last two columns are a view read from the
disk, not from the page cache, and the plain bytes of its files. `not yet`: the machine was too busy for times that mean anything.
"""


def main() -> None:
    """Rewrite the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
