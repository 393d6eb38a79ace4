"""Numbers and names as text. These functions are the filters of the templates; a missing number stays None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bancache.report.families import number
from bancache.report.tables import Cell, Difference

_HASH_DIGITS = 32


def percent(fraction: float | None, digits: int = 2) -> str | None:
    """Write a fraction in per cent, with a no-break space."""
    return None if fraction is None else f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%"


def share(fraction: float) -> str:
    """Write a share in per cent, below 10 % with one decimal, below 0.05 % as less than 0.1 %."""
    if 0 < fraction < 0.0005:
        return "<\N{NO-BREAK SPACE}0.1\N{NO-BREAK SPACE}%"
    return str(percent(fraction, 1 if fraction < 0.0995 else 0))


def points(fraction: float) -> str:
    """Write a difference of fractions in signed percentage points; what rounds to zero has no sign."""
    text = f"{100 * fraction:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


def typeset(text: str | None) -> str | None:
    """Replace hyphens before digits by minus signs."""
    return None if text is None else text.replace("-", "\N{MINUS SIGN}")


def interval_text(interval: tuple[float, float] | None) -> str:
    """Write a confidence interval in percentage points; without one there were too few seeds."""
    return f"{points(interval[0])} to {points(interval[1])}" if interval else "too few seeds"


def cell_text(cell: Cell) -> str:
    """Write a cell in per cent: the mean, with the spread if there is one."""
    spread = "" if cell.spread is None else f" ± {100 * cell.spread:.2f}"
    return f"{100 * cell.mean:.2f}{spread}"


def difference_text(difference: Difference) -> str:
    """Write a difference in percentage points: the mean, with its interval or why there is none."""
    interval = difference.interval
    ends = f"{points(interval[0])}, {points(interval[1])}" if interval else "too few seeds"
    return f"{points(difference.mean)} [{ends}]"


def decimals(value: object, form: str) -> str | None:
    """Write a number in a format; None for anything but a number."""
    amount = number(value)
    return None if amount is None else format(amount, form)


def scientific(amount: float | None) -> str | None:
    """Write a small number as 2.3 × 10⁻⁴."""
    if not amount:
        return None if amount is None else "0"
    digits, power = f"{amount:.1e}".split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits} × 10{raised}"


def size(value: object) -> str | None:
    """Write a number of bytes in the largest unit that keeps it at 1 or more."""
    amount = number(value)
    units = ["TB", "GB", "MB", "kB", "bytes"]
    while amount is not None and amount >= 1000 and len(units) > 1:
        amount /= 1000
        units.pop()
    return None if amount is None else f"{amount:.3g} {units[-1]}"


def duration(seconds: float | None) -> str | None:
    """Write seconds as s, min and s, or h and min; negative ones with a minus sign."""
    if seconds is None:
        return None
    if abs(seconds) < 60:
        return f"{seconds:.1f} s".replace("-0.0", "0.0")
    minutes, rest = divmod(round(abs(seconds)), 60)
    text = f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
    return f"-{text}" if seconds < 0 else text


def saved(saving: Mapping[str, float]) -> str | None:
    """Write the time that a cache saved; less than a twentieth of its dump's time is about 0."""
    return "about 0" if abs(saving["saved"]) < 0.05 * saving["dump"] else duration(saving["saved"])


def short(value: object) -> str | None:
    """Write a value in few words: a float in six digits, a long hash by its beginning."""
    if value is None or isinstance(value, bool):
        return {None: None, True: "yes", False: "no"}[value]
    if isinstance(value, dict):
        return str(value.get("id") or value.get("name") or ", ".join(f"{k} {v}" for k, v in value.items()))
    if isinstance(value, list):
        return ", ".join(str(short(inner)) for inner in value)
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    is_hash = len(text) >= _HASH_DIGITS and all(char in "0123456789abcdef" for char in text)
    return f"{text[:12]}…" if is_hash else text


def distinct(records: Sequence[Mapping[str, object]], name: str) -> str:
    """Join the distinct values of a key over the records."""
    values = [record[name] for record in records if record.get(name) is not None]
    return ", ".join(dict.fromkeys(map(str, values)))


FILTERS = (
    percent, share, points, typeset, interval_text, cell_text, difference_text, decimals, scientific, size,
    duration, saved, short, distinct,
)  # fmt: skip
