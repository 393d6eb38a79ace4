"""Records as a small study writes them; its figures were worked out by hand in test_tables.py."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]

ERRORS = {
    0: {0: 0.5810, 1: 0.5780, 2: 0.5840},
    1: {0: 0.5640, 1: 0.5660, 2: 0.5620},
    2: {0: 0.5700, 1: 0.5660},
}


def tested(error: float, **more: Any) -> Record:
    return {"accuracy": 1 - error, "error": error, "samples": 10_000, **more}


def run(generation: int, seed: int, error: float, **more: Any) -> Record:
    return {
        "kind": "run",
        "generation": generation,
        "seed": seed,
        "model": "resnet-8",
        "loss": "ban-l",
        "data": "digits",
        "num_views": 162 if generation else None,
        "test": tested(error),
        **more,
    }


def ensemble(size: int, seed: int, error: float, **more: Any) -> Record:
    generations = list(range(1, size + 1))
    return {
        "kind": "ensemble",
        "name": f"Ens*{size}",
        "seed": seed,
        "generations": generations,
        "test": tested(error),
        **more,
    }


def study() -> list[Record]:
    runs = [run(g, seed, error) for g, errors in ERRORS.items() for seed, error in errors.items()]
    return [*runs, ensemble(2, 0, 0.5500)]


LABELS = {1: {0: 0.5800, 1: 0.5820, 2: 0.5780}, 2: {0: 0.5760, 1: 0.5740}}
WEIGHT_2 = {0: 0.5740, 1: 0.5740, 2: 0.5720}


def control(member: int, seed: int, error: float, role: str = "labels", **more: Any) -> Record:
    return {
        **run(0, seed, error),
        "kind": "control",
        "role": role,
        "member": member,
        "loss": "labels",
        "weights": f"{role}-{member}-{seed}",
        **more,
    }


def control_ensemble(size: int, seed: int, error: float) -> Record:
    members = list(range(1, size + 1))
    return {
        "kind": "ensemble",
        "name": f"Ctl*{size}",
        "seed": seed,
        "loss": "labels",
        "members": members,
        "weights": [f"labels-{member}-{seed}" for member in members],
        "test": tested(error),
    }


def controlled_study() -> list[Record]:
    """The study with its controls, and an ensemble of two for the second seed too."""
    twins = [control(k, seed, error) for k, errors in LABELS.items() for seed, error in errors.items()]
    heavy = [control(1, seed, error, "weight-2") for seed, error in WEIGHT_2.items()]
    ensembles = [control_ensemble(2, 0, 0.5560), control_ensemble(2, 1, 0.5530), ensemble(2, 1, 0.5490)]
    return [*study(), *twins, *heavy, *ensembles]


def rich_study() -> list[Record]:
    """The study with everything that a record can hold."""
    bins = [
        {"low": 0.0, "high": 0.5, "count": 0, "confidence": 0.0, "accuracy": 0.0},
        {"low": 0.5, "high": 1.0, "count": 10_000, "confidence": 0.6, "accuracy": 0.5},
    ]
    history = [
        {"epoch": 1, "loss": 4.0, "train_accuracy": 0.2, "learning_rate": 0.1, "test_accuracy": 0.25},
        {"epoch": 2, "loss": 3.0, "train_accuracy": 0.3, "learning_rate": 0.0},
    ]
    ancestor = {
        "generation": 0,
        "model": "resnet-8",
        "weights": "ab" * 32,
        "accuracy": 0.419,
        "cache": "cd" * 32,
    }
    common: Record = {
        "time": "2026-01-01T00:00:00+00:00",
        "seconds": 90.0,
        "command": "bancache generations --out runs/x",
        "environment": {"torch": "2.11.0", "device": "cpu", "gpus": {"count": 0}},
    }
    records = [{**record, **common} for record in study()]
    for record in records:
        record["test"] |= {"nll": 2.1, "ece": 0.083, "bins": bins}
        if record["kind"] == "run":
            record |= {
                "history": history,
                "parameters": 78_042,
                "epochs": 2,
                "views": "crop4-flip",
                "images_per_second": 850.4,
                "recipe": {"lr": 0.2, "amp": False},
                "lineage": [ancestor] if record["generation"] else [],
            }
    fidelity = {"kl_mean": 2.3e-4, "kl_p999": 4e-3, "kl_max": 0.02, "argmax_agreement": 0.9995}
    dump = {
        "kind": "dump",
        "generation": 0,
        "seed": 0,
        "samples": 10_000,
        "views": 162,
        "classes": 100,
        "encoding": "root2-l64",
        "bytes": 148_000_000,
        "bytes_per_entry": 91.36,
        "fidelity": {"1": fidelity, "4": fidelity},
        "images_per_second": 3_160.0,
    }
    return [*records, {**dump, **common}]
