"""Does the encoding of the soft targets change a student's accuracy?

A ResNet-8 is trained on the same soft targets, stored as float32 and in smaller encodings. The teacher is a WRN-16-2, run
on 8 views of each of its 5,000 training images. The student sees each view three times, and no labels (loss ``ban``), so
it learns from the targets alone. Students of one seed differ only in the encoding. The test accuracy is measured on
CIFAR-100's 10,000 test images. Each finished student adds a line; a second call resumes.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bancache.cache.opening import open_writer
from bancache.cache.reader import Cache, open_cache
from bancache.encodings import from_config, parse_encoding
from bancache.encodings.fidelity import merge, summarize, tally
from bancache.sources.spec import DataSpec
from bancache.training import PRESETS, TrainerOptions, run_for_cache, train
from benchmarks.converged import WORK, command, converged_cache
from benchmarks.converged import options as add_options
from benchmarks.harness import RESULTS, arguments, report

ENCODINGS = ("float32", "root4", "root2-64", "topk-10")
SEEDS = (1, 2, 3)
RECIPE = replace(PRESETS["onecycle"], epochs=24, lr=0.2, loss="ban")
MODEL = "resnet-8"
CPU = torch.device("cpu")


def encoded_as(cache: Cache, name: str, out: Path) -> Cache:
    """Return a copy of a float32 cache in another encoding; teacher and views are the same."""
    manifest = cache.manifest
    if name == from_config(manifest.encoding, manifest.classes).name:
        return cache
    encoding = parse_encoding(name, manifest.classes)
    manifest = replace(manifest, fields=encoding.fields(), encoding=encoding.to_config())
    with open_writer(out, manifest) as writer:
        if writer is not None:
            for shard in writer.pending():
                logits = torch.from_numpy(
                    cache.read_view(shard.view_index)["logits"][shard.start : shard.stop]
                )
                fields = encoding.encode(logits)
                arrays = {key: values.numpy() for key, values in fields.items()}
                writer.write_shard(shard, arrays, tally(encoding, logits, fields))
            writer.finish(lambda facts: {"fidelity": summarize(merge(facts))})
    return open_cache(out)


def student(cache: Cache, name: str, seed: int, *, quick: bool) -> dict[str, Any]:
    """Train one student, unless it is trained already, and return its line."""
    spec = DataSpec.from_dict(cache.manifest.dataset["spec"])
    images, test = spec.open("train"), spec.open("test")
    architecture = {
        "name": "convnet-4" if quick else MODEL,
        "classes": len(images.classes),
        "channels": images.channels,
        "image_size": [images.height, images.width],
        "dropout": 0.0,
    }
    recipe = replace(RECIPE, epochs=1) if quick else RECIPE
    run = run_for_cache(architecture, recipe, seed, spec, images, cache)
    options = TrainerOptions(cache.path.with_name(f"{name}-seed{seed}.pt"), CPU, eval_every=0)
    trained = train(run, images, test, options, cache=cache).checkpoint
    return {
        "encoding": name,
        "seed": seed,
        "model": architecture["name"],
        "epochs": recipe.epochs,
        "loss": recipe.loss,
        "views": cache.manifest.num_views,
        "samples": cache.manifest.samples,
        "bytes_per_entry": cache.bytes / (cache.manifest.samples * cache.manifest.num_views),
        "kl_mean": cache.summary["fidelity"]["1"]["kl_mean"],
        "test_accuracy": trained.header["test"]["accuracy"],
        "train_accuracy": trained.header["history"][-1]["train_accuracy"],
        "weights": trained.fingerprint,
    }


def main() -> None:
    """Train the missing students and print their lines."""
    chosen = arguments("encoding_students", str(__doc__), add_options)
    if chosen.quick:
        quick(chosen)
        return
    cache, done = open_cache(converged_cache(chosen.teacher)), _done()
    for seed in SEEDS:
        for name in ENCODINGS:
            if (name, seed) not in done:
                rows = [student(encoded_as(cache, name, WORK / f"{name}.zarr"), name, seed, quick=False)]
                report("encoding_students", rows, chosen)


def quick(chosen: Any) -> None:
    """Train tiny models on some digits for one epoch."""
    with tempfile.TemporaryDirectory() as folder:
        teacher, cache = f"{folder}/teacher.pt", f"{folder}/float32.zarr"
        command("train-teacher", "--data", "digits", "--limit", "300", "--epochs", "1", "--out", teacher)
        dumped = ["--num-views", "1", "--encoding", "float32", "--out", cache]
        command("dump", "--teacher", teacher, *dumped)
        opened = open_cache(Path(cache))
        rows = [
            student(encoded_as(opened, name, Path(folder) / f"{name}.zarr"), name, 1, quick=True)
            for name in ENCODINGS[:2]
        ]
    report("encoding_students", rows, chosen)


def _done() -> set[tuple[str, int]]:
    """Return encoding and seed of each student that has a line."""
    lines = RESULTS / "encoding_students.jsonl"
    if not lines.exists():
        return set()
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    return {(row["encoding"], row["seed"]) for row in rows}


if __name__ == "__main__":
    main()
