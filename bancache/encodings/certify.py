"""Whether answers that were kept in some encoding may be used at some temperature."""

from __future__ import annotations

from collections.abc import Mapping

from bancache.encodings import Encoding, default_encoding
from bancache.encodings.fidelity import TEMPERATURES
from bancache.errors import UsageError

# Mean divergence in nats, ten times what a teacher differs from itself by when it runs in bfloat16.
TOLERABLE = 1e-3

Fidelity = Mapping[str, Mapping[str, float]]


def loss_at(fidelity: Fidelity | None, temperature: float) -> float | None:
    """Return the mean divergence at a temperature, in nats; None where none was measured.

    Between two measured temperatures it is the greater of both, below the lowest the lowest's.

    Args:
        fidelity: As ``summarize`` returns it and a cache's summary keeps it.
        temperature: Of the softmax.
    """
    if temperature > TEMPERATURES[-1]:
        return None
    below = max((t for t in TEMPERATURES if t <= temperature), default=TEMPERATURES[0])
    above = min(t for t in TEMPERATURES if t >= temperature)
    known = (fidelity or {}).get
    losses = [known(f"{t:g}", {}).get("kl_mean") for t in (below, above)]
    return max((lost for lost in losses if lost is not None), default=None)


def is_faithful(limit: float, temperature: float, fidelity: Fidelity | None) -> bool:
    """Whether an encoding may be used at a temperature: its own limit allows it, and what was measured agrees.

    At temperature 1 no measurement refuses: there a lossy encoding is what somebody chose.

    Args:
        limit: The encoding's ``max_temperature``.
        temperature: Of the softmax.
        fidelity: What was measured, of a cache or a probe; None before anything was.
    """
    lost = loss_at(fidelity, temperature)
    return temperature <= limit and (temperature <= 1 or lost is None or lost <= TOLERABLE)


def require_faithful(encoding: Encoding, classes: int, temperature: float, fidelity: Fidelity | None) -> None:
    """Refuse a temperature at which an encoding has lost too much of what the teacher said.

    Raises:
        UsageError: Naming what was lost, or the encoding's limit, and an encoding that suffices.
    """
    limit = encoding.max_temperature
    if is_faithful(limit, temperature, fidelity):
        return
    if temperature > limit:
        what = f"encoding '{encoding.name}' is faithful up to temperature {limit:g}, not at {temperature:g}"
    else:
        lost = loss_at(fidelity, temperature)
        what = f"encoding '{encoding.name}' lost {lost:.1e} nats at temperature {temperature:g}"
    enough = default_encoding(temperature, classes)
    if enough == encoding.name:
        enough = "float16"
    raise UsageError(what, hint=f"dump again with --encoding {enough}, or train at a lower --temperature")


def require_bound(name: str, bound: tuple[float, float] | None, fidelity: Fidelity | None) -> None:
    """Refuse what an encoding has lost more of than it was allowed.

    Args:
        name: Of the encoding, for the message.
        bound: A temperature and the mean divergence in nats that is allowed there; None allows everything.
        fidelity: What was measured.

    Raises:
        UsageError: It lost more, or nothing is known about that temperature.
    """
    if bound is None:
        return
    temperature, allowed = bound
    lost = loss_at(fidelity, temperature)
    if lost is None or lost > allowed:
        amount = "an unknown number of" if lost is None else f"{lost:.2e}"
        raise UsageError(
            f"encoding '{name}' lost {amount} nats at temperature {temperature:g}, "
            f"more than the {allowed:g} allowed",
            hint="dump again with --overwrite and a more faithful --encoding",
        )
