"""Words of messages."""

from __future__ import annotations

import re
import shlex

_REASON_CHARACTERS = 160

_PLURALS = {"class": "classes", "process": "processes", "teacher pass": "teacher passes"}


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one.

    >>> count(1, "damaged file"), count(1438, "image"), count(0, "class")
    ('1 damaged file', '1,438 images', '0 classes')
    """
    return f"{number:,} {noun if number == 1 else _PLURALS.get(noun, f'{noun}s')}"


def command(*words: object) -> str:
    """Return a command for a hint, in quotes, as a shell takes it.

    >>> command("repair", "my cache.zarr")
    "`bancache repair 'my cache.zarr'`"
    """
    return f"`{shlex.join(['bancache', *map(str, words)])}`"


def reason_of(error: Exception) -> str:
    r"""Return the cause in an error's message, as one line without addresses and response bodies.

    >>> reason_of(OSError("Generic S3 error: Error performing PUT http://x/y in 1ms - Server returned status 503: <a>\nb"))
    'server returned status 503'
    """
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    line = line.rpartition(" - ")[2].partition(": <")[0]
    code = re.search(r"<Code>(\w+)</Code>", str(error))
    reason = f"{line} ({code[1]})" if code else line
    # A server may have put anything into it.
    reason = "".join(letter for letter in reason if letter.isprintable())[:_REASON_CHARACTERS]
    return reason if reason[:2].isupper() else reason[:1].lower() + reason[1:]
