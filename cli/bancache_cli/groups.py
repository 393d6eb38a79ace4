"""Groups of options: a command takes one dataclass per group, and typer sees one option per field."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from inspect import Parameter
from typing import Any, get_type_hints

Command = Callable[..., None]


def expand_groups(command: Command) -> Command:
    """Return a command with one parameter per option, which calls the given one with one value per group.

    A parameter whose type is a dataclass is a group. If the parameter has a default, its fields are the
    options' defaults.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Size:
    ...     width: int = 1
    ...     height: int = 2
    >>> def area(size: Size, name: str) -> None:
    ...     print(name, size.width * size.height)
    >>> expand_groups(area)(width=3, height=4, name="area")
    area 12
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        p.name: p.annotation for p in signature.parameters.values() if is_dataclass(p.annotation)
    }
    options = [
        option.replace(kind=Parameter.KEYWORD_ONLY)  # so that required options may follow others
        for parameter in signature.parameters.values()
        for option in (_options(parameter) if parameter.name in groups else [parameter])
    ]

    def call(**given: Any) -> None:
        values = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group) if field.init})
            for name, group in groups.items()
        }
        command(**given, **values)

    call.__name__, call.__doc__, call.__annotations__ = command.__name__, command.__doc__, {}
    call.__dict__["__signature__"] = signature.replace(parameters=options)
    return call


def _options(group: Parameter) -> list[Parameter]:
    types = get_type_hints(group.annotation, include_extras=True)
    given = {} if group.default is Parameter.empty else vars(group.default)
    return [
        option.replace(annotation=types[name], default=given.get(name, option.default))
        for name, option in inspect.signature(group.annotation).parameters.items()
    ]
