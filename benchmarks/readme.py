"""Which figures do README.md and docs/ show? Those of the committed result lines: this writes them between marks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bancache.report import generations_table, to_markdown
from bancache.report.results import read_records
from benchmarks import rivals_rows
from benchmarks.harness import RESULTS
from tools.marks import filled

ROOT = Path(__file__).parent.parent
README, DOCS = ROOT / "README.md", ROOT / "docs"
GPU = RESULTS / "h200"
GPU_PLACE = "1 × H200, torch 2.11; [step loop](benchmarks/results/h200)"

Line = dict[str, Any]


def read_lines(file: Path) -> list[Line]:
    """Return the lines of a result file."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def gpu_step(kind: str, model: str, *, compiled: bool, online: bool | None = None) -> str:
    """Return milliseconds of a training step on the GPU as ``median (minimum to maximum)``.

    Args:
        kind: ``ours`` from the cache, ``plain`` for an eager torch step.
        model: The student, and the teacher where there is one.
        compiled: By torch.compile.
        online: Whether a plain step runs its teacher.
    """
    (median, low, high) = next(
        line["ms"]
        for line in read_lines(GPU / "steps.jsonl")
        if (line["kind"], line["net"], bool(line["compiled"])) == (kind, model, compiled)
        and line.get("online") == online
        and not line["cudnn_benchmark"]
    )
    return f"{median:.2f} ms ({low:.2f} to {high:.2f})"


def proof_table() -> str:
    """Return the README's table: a step with and without the cache, and bytes beside KL divergence."""
    rows = [
        "| what | from the cache | without the cache | machine and command |",
        "| --- | --- | --- | --- |",
    ]
    for model, title, compiled in (
        ("wrn-28-2", "WRN-28-2, batch 128", False),
        ("wrn-16-4", "WRN-16-4, batch 512", False),
        ("wrn-16-4", "WRN-16-4, batch 512, both compiled", True),
        ("wrn-28-10", "WRN-28-10, batch 128", False),
    ):
        cached = gpu_step("ours", model, compiled=compiled)
        online = gpu_step("plain", model, compiled=compiled, online=True)
        if (model, compiled) == ("wrn-16-4", False):
            online += f"; no teacher at all: {gpu_step('plain', model, compiled=False, online=False)}"
        rows.append(f"| step, {title} | {cached} | teacher online: {online} | {GPU_PLACE} |")
    return "\n".join([*rows, _cpu_step(), *_sizes()])


def _cpu_step() -> str:
    last = {line["what"]: line for line in read_lines(RESULTS / "online.jsonl") if "what" in line}
    cached, online = (_microseconds(last[f"step, {name}"]) for name in ("cached data", "teacher online"))
    measured = last["step, cached data"]
    where = f"1 core, {measured['environment']['cpu']}; `{measured['command'].removesuffix(' --save')}`"
    return f"| step, ResNet-8 (teacher ResNet-20), an image | {cached} | teacher online: {online} | {where} |"


def _microseconds(line: Line) -> str:
    value = line["microseconds_an_image"]
    return f"{value['median']:.0f} µs ({value['low']:.0f} to {value['high']:.0f})"


def _sizes() -> list[str]:
    last = {
        line["encoding"]: line
        for line in read_lines(RESULTS / "encodings.jsonl")
        if line.get("classes") == 100 and "encoding" in line
    }
    where = f"{last['root4']['environment']['cpu']}; `python -m benchmarks.encodings`"
    ours = _size(last["root4"])
    return [
        f"| storage of one view, 100 classes | `root4`: {ours} | {title}: {_size(last[name])} | {where} |"
        for name, title in (("plain float16", "float16 logits"), ("tinyvit top-10", "top 10 as in TinyViT"))
    ]


def _size(line: Line) -> str:
    lost = line["fidelity"]["1"]
    return f"{line['bytes_per_entry']['default']:.0f} bytes, KL {lost['kl_mean']:.1e} (99.9 %: {lost['kl_p999']:.1e})"


def ratio_table(name: str) -> str:
    """Return the last measured ratios of a benchmark as a table."""
    last = {line["ratio"]: line["value"] for line in read_lines(RESULTS / f"{name}.jsonl") if "ratio" in line}
    rows = [
        f"| {ratio} | {value['median']:.2g} | {value['low']:.2g} to {value['high']:.2g} | {value['runs']} |"
        for ratio, value in last.items()
    ]
    return "\n".join(
        ["| ratio of times | median | quartiles | runs |", "| --- | ---: | ---: | ---: |", *rows]
    )


def errors_table(file: Path) -> str:
    """Return the table of test errors of a run of ``bancache generations``."""
    return to_markdown(generations_table(read_records(file))).strip()


def documents() -> dict[Path, dict[str, str]]:
    """Return what belongs between the marks of each document."""
    return {
        README: {"proof": proof_table()},
        DOCS / "comparison.md": {"rivals": rivals_rows.table()},
        DOCS / "loops.md": {"dataset": ratio_table("dataset")},
        DOCS / "study.md": {
            "cifar100-wrn-16-1": errors_table(RESULTS / "cifar100-wrn-16-1" / "results.jsonl"),
            "h200-wrn-28-2": errors_table(GPU / "study-wrn-28-2.jsonl"),
        },
    }


def rewrite(document: Path, blocks: Mapping[str, str]) -> None:
    """Put each block between its marks in a document."""
    document.write_text(filled(document.read_text(), blocks))


if __name__ == "__main__":
    for path, found in documents().items():
        rewrite(path, found)
