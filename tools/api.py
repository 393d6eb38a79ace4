"""The reference of the Python interface, from signatures and docstrings."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import textwrap
from typing import Any

_HEAD = """# Python

<!-- Written by `python -m tools.pages`; do not edit. -->

The public interface: `import bancache as bc`, then `bc.open_loader(...)`, `bc.dump(...)`, `bc.train(...)`. Importing bancache loads
neither torch nor Zarr; a name loads what it needs when it is first used.
Errors are classes of `bancache.errors`; each has a `hint` and the `exit_code` of the [command line](commands.md#exit-codes).
"""

# In the order in which a reader needs them; a public name that is missing here is shown at the end.
_GROUPS = {
    "In a loop": (
        *("open_loader", "Loader", "Batch", "ViewDataset", "View", "losses.MixedLabels"),
        *("test_loader", "EvaluationLoader", "save_checkpoint"),
    ),
    "Losses": tuple(
        f"losses.{name}"
        for name in (
            *("ban_l", "ban", "kd", "cwtm", "dkpp", "permutation_keys"),
            *("cross_entropy", "soft_cross_entropy"),
        )
    ),
    "Caches": ("open_cache", "Cache", "describe_cache"),
    "Images and views": ("open_source", "DataSpec", "ImageSet", "ViewSpace", "Normalization"),
    "Models": ("build_model", "load_checkpoint", "load_teacher"),
    "Whole runs": (
        "dump",
        "DumpSettings",
        "train",
        "evaluate",
        "run_for_cache",
        "run_for_labels",
        "Recipe",
        "TrainerOptions",
    ),
}
_SECTIONS = ("Args", "Attributes", "Raises", "Returns")


class _Bare(str):
    """An annotation that prints as it was written."""

    __slots__ = ()
    __repr__ = str.__str__


def groups() -> dict[str, list[str]]:
    """Return the names of each group, without the leading ``bancache.``; a public name without a group is in the last."""
    public = importlib.import_module("bancache").__all__
    found = {
        title: [name for name in group if name in public or "." in name] for title, group in _GROUPS.items()
    }
    grouped = {name for group in found.values() for name in group}
    found["Whole runs"] += [name for name in public if name not in grouped and name != "losses"]
    return found


def names() -> list[str]:
    """Return every name that the page describes."""
    return [name for group in groups().values() for name in group]


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for title, group in groups().items():
        parts.append(f"## {title}\n")
        parts += [_entry(name) for name in group]
    return "\n".join(parts)


def _entry(name: str) -> str:
    thing = _resolve(name)
    blocks = [f"### {name}", *_call(name, thing), markdown(inspect.getdoc(thing) or "")]
    if inspect.isclass(thing):
        own = vars(thing).get("__init__")
        if own is not None and (document := own.__doc__):
            blocks.append(markdown(inspect.cleandoc(document).partition("\n\n")[2]))
        blocks.append("\n".join(filter(None, (_method(*item) for item in vars(thing).items()))))
    return "\n\n".join(filter(None, blocks)) + "\n"


def _call(name: str, thing: Any) -> list[str]:
    """Return how it is called, unless it is only ever returned: then it has parts of its own."""
    if any(parameter.startswith("_") for parameter in inspect.signature(thing).parameters):
        return []
    return [f"```python\n{signature(name, thing)}\n```"]


def _method(name: str, value: Any) -> str:
    """Return a public method or property as an item of its class, nothing for anything else."""
    inner = value.__func__ if isinstance(value, classmethod | staticmethod) else value
    is_value = isinstance(inner, property | functools.cached_property)
    if name.startswith("_") or not (inspect.isfunction(inner) or is_value):
        return ""
    shown = name if is_value else signature(name, inner)
    first = (inspect.getdoc(inner) or "").partition("\n\n")[0]
    return f"- `{' '.join(shown.split())}`: {markdown(' '.join(first.split()))}"


def _resolve(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(f"bancache.{module}" if module else "bancache"), attribute)


def signature(name: str, thing: Any) -> str:
    """Return a call as it is written, with a parameter a line where one line is too long."""
    sig = inspect.signature(thing)
    params = [
        param.replace(annotation=_Bare(_written(param.annotation)))
        for param in sig.parameters.values()
        if param.name not in ("self", "cls")
    ]
    returns = "" if inspect.isclass(thing) else f" -> {sig.return_annotation}"
    short = name.rpartition(".")[2]
    line = f"{short}{inspect.Signature(params)}{returns}"
    return line if len(line) <= 100 else f"{short}(\n{_lines(params)}\n){returns}"


def _written(annotation: Any) -> str:
    """Return an annotation as in the source; a NamedTuple keeps it wrapped."""
    return str(getattr(annotation, "__forward_arg__", annotation))


def _lines(params: list[inspect.Parameter]) -> str:
    """Return the parameters on lines of their own, with the mark of those that have names only."""
    lines, marked = [], False
    for param in params:
        if param.kind is param.KEYWORD_ONLY and not marked:
            lines.append("    *,")
            marked = True
        lines.append(f"    {param},")
    return "\n".join(lines)


def markdown(document: str) -> str:
    """Return a docstring's text as Markdown: sections as lists, examples as code."""
    blocks: list[str] = []
    for block in document.replace("``", "`").split("\n\n"):
        title, _, rest = block.partition("\n")
        if title.rstrip(":") in _SECTIONS and title.endswith(":"):
            blocks.append(f"**{title}**\n\n{_items(rest)}")
        elif block.startswith(">>>"):
            blocks.append(f"```pycon\n{block}\n```")
        else:
            blocks.append(block)
    return "\n\n".join(blocks)


def _items(text: str) -> str:
    """Return ``name: text`` entries, whose later lines are indented, as a list."""
    entries = re.split(r"\n(?=\S)", textwrap.dedent(text).rstrip())
    items = []
    for entry in entries:
        name, colon, what = entry.partition(": ")
        folded = " ".join(what.split())
        items.append(f"- `{name}`: {folded}" if colon else f"- {' '.join(entry.split())}")
    return "\n".join(items)
