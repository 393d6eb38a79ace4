"""What does each encoding cost and lose on the answers of a converged teacher, and how fast is it?

Rate: bytes of an entry as a store keeps it, compressed, side arrays and checksums included. Distortion: divergence from
the teacher in nats, agreement and gradient error, as `bancache info` states them. Speed: CPU time of encoding
float32 logits and of decoding to float32 probabilities at temperature 1, as a multiple of copying those float32 numbers,
batches of 500 entries in turn, interleaved. With what others keep beside ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

from bancache.encodings import KNOWN, Encoding, parse_encoding
from bancache.encodings.fidelity import merge, summarize, tally
from bancache.encodings.root import Root
from bancache.models import build_model
from benchmarks.converged import Source, converged_cache, hundred, invented, options, thousand
from benchmarks.harness import arguments, interleave, ratios, report
from benchmarks.other_encodings import Plain, TinyViT
from benchmarks.root_theory import compare
from benchmarks.sizes import PROFILES

KEPT = (10, 16, 64, 100)
BATCH = 500
TIMED = ("float32", "float16", "int8", "root4", "root8", "root12", "root2-64", "topk-10")

# Those of our names, and their neighbors: the best r for a temperature lies between them.
ROOTS = (2, 3, 4, 5, 6, 8, 10, 12, 16)

Code = tuple[str, Encoding]


def codes(classes: int) -> list[Code]:
    """Return every encoding of ours, and what others keep, by name."""
    others: list[Code] = [
        ("plain float16", Plain(classes, torch.float16)),
        ("plain bfloat16", Plain(classes, torch.bfloat16)),
        *((f"tinyvit top-{k}", TinyViT(classes, k)) for k in KEPT if k < classes),
    ]
    return [(name, parse_encoding(name, classes)) for name in KNOWN] + others


def weigh(source: Source) -> list[dict[str, Any]]:
    """Return a line for each code: its bytes in each profile and its fidelity."""
    about, lines = source.about(), []
    for name, code in codes(about["classes"]):
        tallies, per_view = [], []
        for answers in source.answers:
            parts = [code.encode(part) for part in torch.split(answers, BATCH)]
            tallies += [
                tally(code, part, fields)
                for part, fields in zip(torch.split(answers, BATCH), parts, strict=True)
            ]
            per_view.append({key: torch.cat([part[key] for part in parts]).numpy() for key in parts[0]})
        limit = code.max_temperature
        lines.append(
            {
                "encoding": name,
                **about,
                "bytes_per_entry": {
                    profile: _each(size(per_view, classes=about["classes"]), about)
                    for profile, size in PROFILES
                },
                "raw_bytes_per_entry": sum(part[0].nbytes for part in per_view[0].values()),
                "max_temperature": None if limit == float("inf") else limit,
                "fidelity": summarize(merge(tallies)),
            }
        )
    return lines


def time_codes(source: Source, *, rounds: int) -> list[dict[str, Any]]:
    """Return a line for each code and direction: its time as a multiple of a copy's."""
    classes = source.answers[0].shape[1]
    batches = torch.split(source.answers[0], BATCH)
    target = torch.empty_like(batches[0])
    by_name = {name: parse_encoding(name, classes) for name in TIMED}
    stored = {name: [code.encode(batch) for batch in batches] for name, code in by_name.items()}
    steps = [fields["q"] for fields in stored["root4"]]

    def over(items: Iterable[Any], act: Callable[[Any], Any]) -> Callable[[], None]:
        def run() -> None:
            for item in items:
                act(item)

        return run

    variants = {"memcpy": over(batches, lambda batch: target[: len(batch)].copy_(batch))}
    for name, code in by_name.items():
        variants[f"encode {name}"] = over(batches, code.encode)
        variants[f"decode {name}"] = over(stored[name], partial(code.probabilities, temperature=1.0))
    variants["decode root4 by pow"] = over(steps, _by_pow)
    variants["decode root4 by exp and log"] = over(steps, _by_exp)
    seconds = interleave(variants, rounds=rounds)
    return [
        {
            "ratio": f"{name} / memcpy",
            "classes": classes,
            "value": ratios(spent, seconds["memcpy"]),
        }
        for name, spent in seconds.items()
        if name != "memcpy"
    ]


def time_measuring(source: Source, *, rounds: int) -> list[dict[str, Any]]:
    """Return what encoding and measuring cost a dump, as parts of the smallest teacher's forward pass."""
    classes, batch = source.answers[0].shape[1], source.answers[0][:BATCH]
    teacher = build_model("resnet-8", classes=classes, channels=3, image_size=(32, 32)).eval()
    images = torch.zeros(len(batch), 3, 32, 32).to(memory_format=torch.channels_last)
    code = parse_encoding("root4", classes)
    fields = code.encode(batch)

    @torch.no_grad()
    def forward() -> None:
        teacher(images)

    variants = {
        "forward": forward,
        "encoding": lambda: code.encode(batch),
        "measuring": lambda: tally(code, batch, fields),
    }
    seconds = interleave(variants, rounds=rounds)
    return [
        {
            "ratio": f"{name} root4 / forward pass of ResNet-8",
            "classes": classes,
            "value": ratios(seconds[name], seconds["forward"]),
        }
        for name in ("encoding", "measuring")
    ]


def _each(total: float | None, about: dict[str, Any]) -> float | None:
    return None if total is None else total / about["entries"]


def _by_pow(steps: torch.Tensor) -> torch.Tensor:
    weights = steps.to(torch.float32).clamp_(min=0.25).mul_(1 / 255).pow_(4.0)
    return weights.div_(weights.sum(dim=1, keepdim=True))


def _by_exp(steps: torch.Tensor) -> torch.Tensor:
    return torch.softmax(steps.to(torch.float32).clamp_(min=0.25).log_().mul_(4), dim=1)


def _options(parser: argparse.ArgumentParser) -> None:
    options(parser)
    parser.add_argument("--speed", action="store_true", help="measure times alone")


def _lossy(source: Source) -> Iterable[dict[str, Any]]:
    """Return what each code costs and loses."""
    yield from weigh(source)
    for root in ROOTS:
        yield from compare(source.answers, Root(source.answers[0].shape[1], root))


def main() -> None:
    """Measure and print."""
    chosen = arguments("encodings", str(__doc__), _options)
    if chosen.quick:
        sources = [invented(100), invented(1000)]
    else:
        cache = converged_cache(chosen.teacher)
        sources = [hundred(cache), thousand(cache, chosen.teacher)]
    rows = [] if chosen.speed else [line for source in sources for line in _lossy(source)]
    rows += [line for source in sources for line in time_codes(source, rounds=2 if chosen.quick else 15)]
    rows += [line for source in sources for line in time_measuring(source, rounds=2 if chosen.quick else 15)]
    report("encodings", rows, chosen)


if __name__ == "__main__":
    main()
