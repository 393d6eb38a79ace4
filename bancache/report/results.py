"""results.jsonl: one JSON object per line for each finished run, cache, control, ensemble, arm or comparison.

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
``teacher``   the teacher that a born-again sequence began with, once for each seed: ``seed``, ``data``, ``limit``,
              ``model`` (of the students), ``teacher`` (its own), ``weights``, ``test`` as for a run
``arm``       one model or ensemble of a study from a file: ``name``, and the rest as for a run; of an ensemble the
              names of its ``members`` and their ``weights``; of a teacher that was there its ``weights`` and ``test``
``agreement`` how far a model is from earlier models: ``net``, ``weights``, ``seed``, ``with`` (``net``, ``weights``,
              ``share`` of the test images with the same class, ``kl`` of its probabilities from theirs, in nats; older
              lines lack it), ``samples``
``train``     an arm on training images without augmentation, at most 10,000: ``name``, ``weights``, ``seed``, ``train``
              (``accuracy``, ``error``, ``nll``, ``ece``), ``with`` its teacher as for an agreement, ``samples``

Rates are images per second, sizes bytes, accuracies and errors fractions of one.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from bancache.errors import DataError
from bancache.system.checked import Amount, Seed, Share, Text, checked, parse_json
from bancache.system.files import append_line, read_bounded, storage_errors
from bancache.system.locks import wait_for_lock

RESULTS = "results.jsonl"
Record = dict[str, Any]
_LIMIT = 1 << 30
_Number = Annotated[int, Meta(ge=0, lt=1 << 31)] | None


class _Test(Struct):
    error: Share | None = None
    accuracy: Share | None = None
    nll: Amount | None = None
    ece: Share | None = None


class _Line(Struct):
    """What every line of a kind of ours has, where it has it; ``families`` says what is required."""

    kind: Text = ""
    generation: _Number = None
    member: _Number = None
    seed: Seed | None = None  # below 0 in lines of earlier versions
    test: _Test | None = None
    model: Text | None = None
    loss: Text | None = None
    weights: Text | list[Text] | None = None
    digest: Text | None = None
    out: Text | None = None
    seconds: Amount | None = None
    images_per_second: Amount | None = None


def append_record(path: Path, record: Record) -> None:
    """Append one record to a results file, durably, with the time it was written."""
    stamped = {"time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), **record}
    append_line(path, json.dumps(stamped, allow_nan=False))


def append_once(path: Path, record: Record, *keys: str) -> None:
    """Append a record, unless one of its kind with the same values of ``keys`` is there already.

    A command may be killed after it wrote its file and before this line; run again, it appends the same record.
    A long line goes to disk in pieces, so a lock keeps other processes from writing between them.
    """
    if path.exists():
        read_records(path)  # what is no file would block or fail in other words
    with storage_errors(path), path.open("ab") as held:
        wait_for_lock(held.fileno(), fcntl.LOCK_EX)  # dropped when the file is closed or the process dies
        known = read_records(path)
        if not any(all(other.get(key) == record[key] for key in ("kind", *keys)) for other in known):
            append_record(path, record)


def read_records(path: Path) -> list[Record]:
    """Read every record; lines that a power cut left incomplete are skipped.

    Raises:
        DataError: The file is missing, or a line is not a record: no JSON object, or a value of a wrong type or range.
    """
    hint = (
        "name a results.jsonl"
        if path.exists()
        else "name a folder made by `bancache generations` or `bancache study`"
    )
    content = read_bounded(path, limit=_LIMIT, error=DataError, hint=hint)
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read: {error}", hint="name a results.jsonl") from error
    records = []
    for number, line in enumerate(lines, 1):
        name = f"{path}, line {number}"
        record = _object(line)
        if record is not None:
            checked(record, _Line, name=name, error=DataError, hint="correct or remove that line")
            records.append(record)
        # The next append ended a line that breaks off, or will do so.
        elif line.strip("\0") and number < len(lines) and not _breaks_off(line):
            raise DataError(f"{name} is not a JSON object", hint="correct or remove that line")
    return records


def _object(line: str) -> Record | None:
    try:
        value = parse_json(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _breaks_off(line: str) -> bool:
    """Whether a line is the beginning of a record: it ends before its last brace."""
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        inside = error.pos >= len(line) or error.msg.startswith("Unterminated string")
        return line.startswith("{") and (inside or not line.rstrip().endswith("}"))
    except (ValueError, RecursionError):
        pass
    return False
