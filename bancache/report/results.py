"""results.jsonl: one JSON object per line for each finished run, cache, control, ensemble or agreement.

Every record has ``kind``, ``time`` (UTC, ISO 8601), ``seconds``, ``command`` and ``environment``. By kind:

``run``       one trained model: ``generation`` (0 = trained on labels), ``seed``, ``model``, ``parameters``,
              ``loss``, ``epochs``, ``data`` (as typed), ``views`` (as typed), ``num_views`` (of the cache;
              null for generation 0), ``test`` (``accuracy``, ``error``, ``nll``, ``ece``, ``samples``,
              ``bins``: the reliability diagram), ``history`` (one object per epoch: ``epoch``, ``loss``,
              ``train_accuracy``, ``learning_rate``, and ``test_accuracy`` where it was measured),
              ``images_per_second``, ``recipe``, ``lineage`` (generation 0 first), ``out``,
              ``share_ends`` (with its teacher: ``none``, ``copy`` or ``freeze``), ``trainable`` (parameters)
``dump``      one cache: ``generation`` and ``seed`` of its teacher, ``samples``, ``views``, ``classes``,
              ``encoding``, ``bytes``, ``bytes_per_entry``, ``fidelity``, ``images_per_second``, ``out``
``control``   one model without a teacher, as for a run: ``role`` (``labels``: the label-only baseline of student
              ``member``; ``weight-2``: the first of them with a doubled CE weight, its ``label_weight``), ``member``
``ensemble``  ``name`` (``Ens*2``, of controls ``Ctl*2``), ``seed``, ``generations`` of the members, of controls
              ``members``, their ``weights``, ``test`` as for a run
``agreement`` how often a model predicts the same class as earlier models: ``net``, ``weights``, ``seed``,
              ``with`` (``net``, ``weights``, ``share`` of the test images), ``samples``

Rates are images per second, sizes bytes, accuracies and errors fractions of one.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
from pathlib import Path
from typing import Any

from bancache.errors import DataError
from bancache.system.files import append_line, storage_errors

Record = dict[str, Any]


def append_record(path: Path, record: Record) -> None:
    """Append one record to a results file, durably, with the time it was written."""
    stamped = {"time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), **record}
    append_line(path, json.dumps(stamped, allow_nan=False))


def append_once(path: Path, record: Record, *keys: str) -> None:
    """Append a record, unless one of its kind with the same values of ``keys`` is there already.

    A command may be killed after it wrote its file and before this line; run again, it appends the same record.
    A long line goes to disk in pieces, so a lock keeps other processes from writing between them.
    """
    with storage_errors(path), path.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # the system drops it when the file is closed or the process dies
        known = read_records(path)
        if not any(all(other.get(key) == record[key] for key in ("kind", *keys)) for other in known):
            append_record(path, record)


def read_records(path: Path) -> list[Record]:
    """Read every record; an incomplete last line, left by a power cut, is skipped."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing", hint="name a folder made by `bancache generations`") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="name a results.jsonl") from error
    *lines, last = text.split("\n")
    if _object(last) is not None:
        lines.append(last)
    records = []
    for number, line in enumerate(lines, 1):
        record = _object(line)
        # The beginning of a record may have been torn by a power cut and then closed by the next append.
        torn = number < len(lines) and line.startswith("{") and not line.rstrip().endswith("}")
        if record is not None:
            records.append(record)
        elif line and not torn:
            raise DataError(f"{path}, line {number} is not a JSON object", hint="correct or remove that line")
    return records


def _object(line: str) -> Record | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
