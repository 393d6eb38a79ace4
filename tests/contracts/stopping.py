"""A request to stop that comes at a known step."""

from __future__ import annotations

from bancache.system.signals import Interrupt


class StopAfter(Interrupt):
    """Requests a stop, as SIGTERM does, at the look after so many others; a training looks once after each step."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._left = looks

    @property
    def requested(self) -> bool:
        self._left -= 1
        if self._left < 0:
            self.signal_number = 15
        return self._left < 0
