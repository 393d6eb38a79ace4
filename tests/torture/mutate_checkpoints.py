"""Changes of checkpoints and weights files: bytes of a file, bytes of its pickle with checksums that fit, header values."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from hypothesis import strategies as st
from torture.mutating import Chance, Job, Mutator

from bancache.models.checkpoint import load_checkpoint, save_checkpoint
from bancache.models.teacher import load_checkpoint_teacher
from bancache.models.weights import load_weights

OLD = Path(__file__).parents[1] / "fixtures" / "version-0.1" / "gen0.pt"

# What a header may hold instead of a value, from the nearly right to the enormous.
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 3, 2**31, 10**30, -0.5, 1e308, float("nan"), float("inf"), "", "x", "\x1b[2J", "é" * 3000),
    *([], {}, [[]], [1, 2], [10**5, 10**5], {"a": 1}, ["0"] * 10, [0.0], [[[[[[[[1]]]]]]]]),
    *("preresnet-99992", "wrn-28-99999", "wrn-99994-1", "densenet-bc-99994-1", "convnet-99999", "convnet-2-2", "resnet-8"),
    *("match-wrn-99999-1", "match-densenet-99999-1-1", "torchvision:vit_h_14", "torchvision:x", "timm:eva_giant_patch14_224"),
    *("timm:x", "os:abort", "wrn-10-1@resnet-8", "densenet-bc-90-60"),
)  # fmt: skip


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Change, insert, remove or repeat a few bytes."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        kind = draw(st.sampled_from(("set", "insert", "remove", "repeat", "cut")))
        length = draw(st.integers(1, 8))
        if kind == "set":
            changed[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "insert":
            changed[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif kind == "remove":
            del changed[at : at + length]
        elif kind == "repeat":
            changed[at:at] = changed[at : at + 8 * length]
        else:
            del changed[at:]
    return bytes(changed)


@st.composite
def changed_values(draw: st.DrawFn, header: dict[str, Any]) -> dict[str, Any]:
    """Replace, remove or add one or two values of a header."""
    changed: dict[str, Any] = json.loads(json.dumps(header))
    for _ in range(draw(st.integers(1, 2))):
        inside: Any = changed
        key: Any = draw(st.sampled_from(sorted(changed))) if changed else "name"
        while isinstance(inside.get(key) if isinstance(inside, dict) else inside[key], dict | list):
            deeper = inside[key]
            if not deeper or not draw(st.booleans()):
                break
            inside = deeper
            key = draw(st.sampled_from(sorted(inside) if isinstance(inside, dict) else range(len(inside))))
        if draw(st.booleans()) or not isinstance(inside, dict):
            inside[key] = draw(st.sampled_from(ODD))
        elif draw(st.booleans()):
            del inside[key]
        else:
            inside[draw(st.sampled_from(("name", "x", "classes")))] = draw(st.sampled_from(ODD))
    return changed


def with_pickle(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return a file of torch.save whose pickle is changed and whose checksums fit."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as new:
        for record in old.infolist():
            data = old.read(record)
            new.writestr(record.filename, change(data) if record.filename.endswith("/data.pkl") else data)
    return out.getvalue()


def tries(
    content: bytes, path: Path, read: Callable[[Path], object], refusals: tuple[type[Exception], ...]
) -> bool:
    """Write a file and read it; return whether it was refused. Any exception but a refusal is a bug."""
    path.write_bytes(content)
    try:
        read(path)
    except refusals:
        return True
    return False


def checkpoints(folder: Path, chance: Chance) -> Job:
    """Load a checkpoint whose bytes, whose pickle or whose header is changed."""
    content, path = OLD.read_bytes(), folder / "a.pt"
    change = chance.one_of(("bytes", "pickle", "header"))
    if change == "header":
        checkpoint = load_checkpoint(OLD)
        header = chance.value(checkpoint.header)
        if not isinstance(header, dict):
            header = {}
        with suppress(ValueError, UnicodeEncodeError):  # some odd values cannot be written
            save_checkpoint(path, checkpoint.state, header)
    else:
        path.write_bytes(chance.bytes(content) if change == "bytes" else with_pickle(content, chance.bytes))
    return partial(load_checkpoint_teacher, path, device=torch.device("cpu"))


def weights(folder: Path, chance: Chance) -> Job:
    """Load weights from a file of safetensors or of torch.save that is changed."""
    model = torch.nn.Linear(3, 2)
    content = safetensors.torch.save(model.state_dict())
    path = folder / chance.one_of(("a.safetensors", "a.pth"))
    if path.suffix == ".pth":
        stream = io.BytesIO()
        torch.save({"state_dict": model.state_dict(), "epoch": 3}, stream)
        content = stream.getvalue()
    path.write_bytes(chance.bytes(content))
    return partial(load_weights, model, "nets:linear", str(path))


MUTATORS: dict[str, Mutator] = {"checkpoints": checkpoints, "weights": weights}
