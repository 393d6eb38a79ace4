"""Values that are read from disk are checked, in any thread."""

from __future__ import annotations

import subprocess
import sys

FIRST_TOGETHER = """
import sys, threading
from msgspec import defstruct
from bancache.errors import DataError
from bancache.system.checked import checked

sys.setswitchinterval(1e-6)
for _ in range(200):
    inner = defstruct("Inner", [("a", int), ("b", "list[str]")])
    kind = defstruct("Outer", [("x", inner), ("y", list[inner]), ("z", dict[str, inner])])
    begin = threading.Barrier(4)

    def check():
        begin.wait()
        checked({"x": {"a": 1, "b": []}, "y": [], "z": {}}, kind, name="it", error=DataError)

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_threads_may_be_the_first_to_check_a_type_together() -> None:
    assert subprocess.run([sys.executable, "-c", FIRST_TOGETHER], check=False).returncode == 0
