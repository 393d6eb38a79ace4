"""Groups of options: a command takes one dataclass per group, and typer sees one option per field.

What holds for the options of all commands is here, too: ``~`` is the user's folder even where the shell did not expand
it, an option with one value may be given once, and a command's main option may be given by its place.
"""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from typer import Argument
from typer.core import TyperCommand

from bancache.errors import StoppedError, UsageError
from bancache.system.address import as_place

Command = Callable[..., None]
_PLACE = "by_place"


class OnceEach(TyperCommand):
    """A command whose options with one value may be given once: a second value would silently replace the first.

    No value is empty: it comes from a variable that is not set, and as a path it would be the current folder.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments as typer does; raise ``UsageError`` for an option that is given twice, or an empty value."""
        parser = self.make_parser(ctx)
        options = {*parser._long_opt.values(), *parser._short_opt.values()}
        single = [option for option in options if option.action == "store"]
        for option in single:
            option.action = "append"
        found, _, _ = parser.parse_args(list(args))
        for parameter in self.params:
            given = found.get(str(parameter.name))
            if "" in (given if isinstance(given, list | tuple) else [given]):
                first = parameter.opts[0]
                name = first if first.startswith("-") else parameter.metavar or first.upper()
                raise UsageError(f"{name} is empty", hint="is a variable of the shell not set?")
        for option in single:
            values = found.get(str(option.dest), ())
            if len(values) > 1:
                name = option.obj.opts[0]
                raise UsageError(
                    f"{' and '.join(f'{name} {value}' for value in values)}", hint=f"give {name} once"
                )
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C where its work does not look for it ends with a line, too."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            hint = "run the same command again"
            raise StoppedError("stopped", signal_number=signal.SIGINT, hint=hint) from stopped


def expand_groups(command: Command, by_place: str | None = None) -> Command:
    """Return a command with one parameter per option, which calls the given one with one value per group.

    A parameter whose type is a dataclass is a group. If the parameter has a default, its fields are the
    options' defaults. The required option ``by_place`` may also be given as the command's argument.

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

    if by_place is not None:
        options = [_not_required(option) if option.name == by_place else option for option in options]
        options.append(_argument(next(option for option in options if option.name == by_place)))

    def call(**given: Any) -> None:
        given = {name: _at_home(value) for name, value in given.items()}
        if by_place is not None:
            given[by_place] = _only(command, by_place, given[by_place], given.pop(_PLACE))
        values = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group) if field.init})
            for name, group in groups.items()
        }
        command(**given, **values)

    call.__name__, call.__doc__, call.__annotations__ = command.__name__, command.__doc__, {}
    call.__dict__["__signature__"] = signature.replace(parameters=options)
    return call


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Return the numbers in a list such as ``0,1,2``; UsageError if it is none."""
    try:
        return tuple(map(int, text.split(",")))
    except ValueError as error:
        raise UsageError(
            f"{option} takes numbers separated by commas, not '{text}'", hint=f"for example {option} 0,1,2"
        ) from error


def _options(group: Parameter) -> list[Parameter]:
    types = get_type_hints(group.annotation, include_extras=True)
    given = {} if group.default is Parameter.empty else vars(group.default)
    return [
        option.replace(annotation=types[name], default=given.get(name, option.default))
        for name, option in inspect.signature(group.annotation).parameters.items()
    ]


def _not_required(option: Parameter) -> Parameter:
    kind, about = get_args(option.annotation)
    return option.replace(annotation=Annotated[kind | None, about], default=None)


def _argument(option: Parameter) -> Parameter:
    kind, *_ = get_args(option.annotation)
    argument = Argument(metavar=option.name.upper(), help=f"The same as --{option.name}.", show_default=False)
    return option.replace(name=_PLACE, annotation=Annotated[kind, argument])


def _only(command: Command, name: str, *values: Any) -> Any:
    """Return the one value that is not None or empty, of the option ``name`` and of the argument in its place."""
    found = [value for value in values if value]
    if len(found) == 1:
        return found[0]
    if found:
        each = [one for value in found for one in (value if isinstance(value, list) else [value])]
        way = "all in one way" if isinstance(found[0], list) else f"one --{name}"
        raise UsageError(" and ".join(f"--{name} {one}" for one in each), hint=f"give {way}")
    help_text = f"run `bancache {command.__name__.replace('_', '-')} --help`"
    raise UsageError(f"missing option '--{name}'", hint=help_text)


def _at_home(value: Any) -> Any:
    """Return a path, or paths, with ``~`` at the beginning expanded, or as an ``Address``; other values unchanged."""
    if isinstance(value, list):
        return [_at_home(each) for each in value]
    if isinstance(value, str | Path) and str(value).startswith("~"):
        try:
            return type(value)(Path(value).expanduser())
        except RuntimeError:  # there is no such user
            return value
    return as_place(value) if isinstance(value, Path) else value
