"""The command reference, generated from the commands."""

from __future__ import annotations

import inspect
from typing import Any

import typer

from bancache import errors
from bancache_cli.app import app

_HEAD = """# Commands

<!-- Written by `python -m tools.pages`; do not edit. -->

The output of `bancache COMMAND --help`, on one page. Results go to stdout, progress and errors to stderr. After a kill at
any instant, the same command goes on where it stopped.
"""

_PLAIN = {"str": "text", "int": "number", "int range": "number", "float": "number", "list[Path]": "path ..."}


def command_table() -> dict[str, Any]:
    """Return every command by name."""
    found: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    return found


def options_of(command: Any) -> set[str]:
    """Return every spelling of a command's options."""
    named = (name for param in command.params for name in (*param.opts, *param.secondary_opts))
    return {name for name in named if name.startswith("-")} | {"--help", "-h"}


def exit_codes() -> dict[str, str]:
    """Return the meaning of each exit code, from the docstrings of the errors."""
    meanings: dict[str, list[str]] = {"0": ["Done."]}
    for error in vars(errors).values():
        if inspect.isclass(error) and issubclass(error, errors.BancacheError):
            code = "130, 143" if error is errors.StoppedError else str(error.exit_code)
            meanings.setdefault(code, []).append(str(error.__doc__).splitlines()[0])
    # Errors without a code of their own have 1; BancacheError comes first and means any failure.
    meanings["1"] = [*meanings["1"][1:], "Any other failure."]
    return {
        code: " ".join(texts) for code, texts in sorted(meanings.items(), key=lambda item: int(item[0][:3]))
    }


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    parts += [_section(name, command) for name, command in command_table().items()]
    rows = "\n".join(f"| {code} | {meaning} |" for code, meaning in exit_codes().items())
    parts.append(f"## Exit codes\n\n| code | meaning |\n| --- | --- |\n{rows}\n")
    return "\n".join(parts)


def _section(name: str, command: Any) -> str:
    text, _, example = inspect.cleandoc(command.help).partition("Example: ")
    context = command.make_context(name, [], resilient_parsing=True)
    rows = "\n".join(_row(param, context) for param in command.params)
    return (
        f"## {name}\n\n{text.strip()}\n\n```console\n$ {example.strip().strip('`')}\n```\n\n"
        f"| option | value | default | |\n| --- | --- | --- | --- |\n{rows}\n"
    )


def _row(param: Any, context: Any) -> str:
    is_option = param.param_type_name == "option"
    names = [*param.opts, *param.secondary_opts] if is_option else [str(param.name).upper()]
    value = "" if getattr(param, "is_bool_flag", False) else param.metavar or param.display_type(context)
    unset = param.default is None or param.default is False
    default = "required" if param.required else "" if unset else f"`{param.default}`"
    value = _PLAIN.get(value.strip("<>"), value.strip("<>"))
    spelled = ", ".join(f"`{name}`" for name in names)
    return f"| {spelled} | {_cell(value)} | {default} | {_cell(param.help or '')} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("\n", " ")
