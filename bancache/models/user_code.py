"""Models and losses of the user's own, ``module:function``, and the place in that code where it fails."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import sysconfig
import traceback
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from bancache.errors import BancacheError, UsageError, is_out_of_memory

HINT = "the error is in that code; BANCACHE_TRACEBACK=1 shows all of it"


def call(spec: str) -> nn.Module:
    """Import the teacher ``module:function`` and call it without arguments; errors are those of ``find``.

    The current folder stays: that code may leave it for the one with its weights, and later paths are relative.
    """
    with contextlib.chdir("."):
        return _called(spec)


def _called(spec: str) -> nn.Module:
    _, named = find(spec, "teacher")
    try:
        with to_stderr():
            model = named if isinstance(named, nn.Module) else named()
    except BancacheError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        raise UsageError(f"teacher '{spec}' fails: {describe(error)}", hint=HINT) from error
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"'{spec}' returned {type(model).__name__}, not a torch module", hint="let it return the model"
        )
    return model


def require_whole(model: nn.Module, spec: str) -> None:
    """Check that ``state_dict`` has the whole model, which binds the cache and moves to the device, and has values."""
    state, seen = model.state_dict(), set(model.modules())
    wrong = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    empty = [name for name, value in state.items() if is_lazy(value) or getattr(value, "is_meta", False)]
    hidden = [
        f"{type(module).__name__}.{name}"
        for module in seen
        for name, value in vars(module).items()
        if isinstance(value, list | tuple) and any(isinstance(each, nn.Module) for each in value)
        if not seen.issuperset(each for each in value if isinstance(each, nn.Module))
    ]
    if hidden:
        what, hint = f"{hidden[0]} holds models in a list, where torch does not see them", "use nn.ModuleList"
    elif wrong:
        what, hint = f"{wrong[0]} is no tensor", "return the model as it was before it was quantized"
    elif empty:
        what, hint = f"{empty[0]} has no values", "load its weights, and show a lazy model a batch"
    else:
        return
    raise UsageError(f"teacher '{spec}': {what}", hint=hint)


def to_stderr() -> contextlib.redirect_stdout[Any]:
    """Let code of the user print to stderr: stdout is for results, with ``--json`` for one object and nothing else."""
    return contextlib.redirect_stdout(sys.stderr)


def find(spec: str, what: str) -> tuple[ModuleType, Any]:
    """Import ``module:function``, the user's code, named by the user; return the module and what has that name.

    Modules of the current folder are found, as by ``python -m``. Every error of that code is a UsageError, in which
    ``what`` says what it was named for.
    """
    module_name, _, function = spec.partition(":")
    if (
        module_name.startswith(".")
        or module_name.endswith(".py")
        or not (module_name and function.isidentifier())
    ):
        name = module_name.removesuffix(".py").replace("/", ".").strip(".") or "module"
        raise UsageError(
            f"no {what} '{spec}': it is neither a {'file' if what == 'teacher' else 'name'} nor module:function",
            hint=f"name a module without .py and a function in it, such as {name}:{function or 'function'}",
        )
    if "" not in sys.path:
        sys.path.append("")
    try:
        with to_stderr():
            module = importlib.import_module(module_name)
        named = getattr(module, function, None)
        if named is None:
            near = get_close_matches(function, vars(module), n=3)
            hint = f"the nearest: {', '.join(near)}" if near else f"{module.__file__} was read"
            raise UsageError(f"no {what} '{spec}': module {module_name} has no {function}", hint=hint)
    except BancacheError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise UsageError(
                f"no {what} '{spec}': no module {error.name} is installed or in the current folder",
                hint="name a checkpoint, torchvision:NAME, timm:NAME or module:function"
                if what == "teacher"
                else "run the command in the folder of that module",
            ) from error
        raise UsageError(f"{what} '{spec}' fails: {describe(error)}", hint=HINT) from error
    return module, named


def describe(error: BaseException) -> str:
    """Return file and line of the user's code, if the error passed through it, the error's class and its first line."""
    if isinstance(error, SyntaxError) and error.filename:
        place: tuple[str, int | None] | None = (error.filename, error.lineno)
    else:
        frames = traceback.extract_tb(error.__traceback__)
        place = next(((f.filename, f.lineno) for f in reversed(frames) if _is_theirs(f.filename)), None)
    said = error.msg if isinstance(error, SyntaxError) else next(iter(str(error).splitlines()), "")
    shown = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return f"{_short(place[0])}:{place[1]}: {shown}" if place else shown


def _is_theirs(file: str) -> bool:
    """Whether a file is neither of Python, nor installed, nor of bancache."""
    if file.startswith("<"):
        return False
    path = Path(file).resolve()
    others = {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    package = Path(__file__).parents[1]
    others |= {str(package), str(package.parent / "cli")}
    return not any(path.is_relative_to(Path(other).resolve()) for other in others)


def _short(file: str) -> str:
    """Return a path relative to the current folder, if it lies in it."""
    relative = os.path.relpath(file)
    return file if relative.startswith("..") else relative
