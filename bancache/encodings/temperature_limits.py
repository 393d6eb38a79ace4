"""The temperatures at which an encoding is accurate enough, by its own limit and by what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from bancache.encodings import Encoding, default_encoding
from bancache.encodings.fidelity import TEMPERATURES
from bancache.errors import UsageError

# Mean KL divergence in nats: ten times the divergence of a teacher in bfloat16 from itself in float32.
TOLERABLE_KL = 1e-3

Fidelity = Mapping[str, Mapping[str, float]]


def divergence_at(fidelity: Fidelity | None, temperature: float) -> float | None:
    """Return the mean KL divergence at a temperature, in nats; None if none was measured.

    Between two measured temperatures it is the larger of both, below the lowest the lowest's. ``fidelity`` are figures
    by temperature, as ``summarize`` returns them and a cache's summary keeps them.
    """
    if temperature > TEMPERATURES[-1]:
        return None
    below = max((t for t in TEMPERATURES if t <= temperature), default=TEMPERATURES[0])
    above = min(t for t in TEMPERATURES if t >= temperature)
    measured = [(fidelity or {}).get(f"{t:g}", {}).get("kl_mean") for t in (below, above)]
    return max((kl for kl in measured if kl is not None), default=None)


def supports_temperature(limit: float, temperature: float, fidelity: Fidelity | None) -> bool:
    """Whether an encoding is accurate enough at a temperature: by its limit, and by the measured divergence.

    At temperature 1 no measurement refuses an encoding: the user chose it.
    """
    kl = divergence_at(fidelity, temperature)
    return temperature <= limit and (temperature <= 1 or kl is None or kl <= TOLERABLE_KL)


def require_temperature(
    encoding: Encoding,
    classes: int,
    temperature: float,
    fidelity: Fidelity | None,
    command: Callable[[str], str] = "dump again with --encoding {}".format,
) -> None:
    """Refuse a temperature that is none, or at which an encoding is not accurate enough.

    The hint is the ``command`` that dumps again with an encoding that is.
    """
    if not 0 < temperature < math.inf:
        raise UsageError(f"temperature {temperature}", hint="give a temperature above 0")
    limit = encoding.max_temperature
    if supports_temperature(limit, temperature, fidelity):
        return
    if temperature > limit:
        what = f"encoding '{encoding.name}' supports temperatures up to {limit:g}, not {temperature:g}"
    else:
        kl = divergence_at(fidelity, temperature)
        what = (
            f"encoding '{encoding.name}' has a KL divergence of {kl:.1e} nats at temperature {temperature:g}"
        )
    enough = default_encoding(temperature, classes)
    if enough == encoding.name:
        enough = "float16"
    raise UsageError(what, hint=f"{command(enough)}; or train at a lower --temperature")


def require_max_divergence(name: str, bound: tuple[float, float] | None, fidelity: Fidelity | None) -> None:
    """Refuse an encoding whose divergence is unknown or above the user's bound.

    ``bound`` is a temperature, and the largest mean KL divergence in nats there; None allows everything.
    """
    if bound is None:
        return
    temperature, allowed = bound
    kl = divergence_at(fidelity, temperature)
    if kl is None or kl > allowed:
        amount = "unknown" if kl is None else f"{kl:.2e} nats"
        raise UsageError(
            f"encoding '{name}': KL divergence {amount} at temperature {temperature:g}, allowed {allowed:g} nats",
            hint="dump again with --overwrite and a more accurate --encoding",
        )
