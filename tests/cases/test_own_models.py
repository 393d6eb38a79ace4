"""Models of a user's own: what they return, where they fail, and which commands take them."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.calling import call, refuse, succeed
from contracts.tiny import CPU, images

import bancache as bc
from bancache.errors import UsageError
from bancache.models.teacher import Teacher, load_teacher

NETS = """
import os
import warnings
import torch
from torch import nn
from types import SimpleNamespace


class Net(nn.Module):
    def __init__(self, shape):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(300, 3)
        self.shape = shape

    def forward(self, batch):
        z = self.fc(batch.flatten(1))
        return self.shape(z, batch)


def plain(): return Net(lambda z, b: z)
def first(): return Net(lambda z, b: (z, b))
def auxiliary(): return Net(lambda z, b: (z, None))
def named(): return Net(lambda z, b: {"features": b.flatten(1), "logits": z})
def only(): return Net(lambda z, b: {"out": z, "map": b})
def attribute(): return Net(lambda z, b: SimpleNamespace(logits=z, hidden_states=None))
def pooled(): return Net(lambda z, b: z[:, :, None, None])
def two(): return Net(lambda z, b: (z, b.flatten(1)))
def nothing(): return Net(lambda z, b: None)
def number(): return Net(lambda z, b: z.mean())
def map(): return Net(lambda z, b: {"map": b})
def half(): return Net(lambda z, b: z).half()
def wide(): return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
def broken(): return Net(lambda z, b: {}["key"])
def picky():
    def shape(z, b):
        assert len(b) == 1, "one image at a time"
    return Net(shape)
def device(): return Net(lambda z, b: z.cuda())
def prints():
    print("building")
    def shape(z, b):
        print("a batch")
        return z
    return Net(shape)
def leaves():
    def shape(z, b):
        raise SystemExit(7)
    return Net(shape)
def softmax(): return Net(lambda z, b: z.softmax(1))
class Trained(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.net, self.norm = Net(lambda z, b: z), nn.BatchNorm2d(3, **options)
    def forward(self, batch):
        self.norm.train(self.norm.track_running_stats)
        return self.net(self.norm(batch))
def trained(): return Trained()
def unrecorded(): return Trained(track_running_stats=False)
def fails(): raise RuntimeError("no weights here")
def asks(classes): return Net(None)
ready = Net(lambda z, b: z)
def scripted():
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(300, 3)))
def lazy(): return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
def skeleton():
    with torch.device("meta"):
        return Net(None)
def quantized():
    with warnings.catch_warnings(action="ignore"):
        return torch.ao.quantization.quantize_dynamic(Net(None), {nn.Linear})
class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.nets = [Net(lambda z, b: z), Net(lambda z, b: z)]
    def forward(self, batch): return sum(net(batch) for net in self.nets)
class Rule(nn.Module):
    def forward(self, batch): return 9 * batch.mean(dim=(2, 3)) - 5
def leaves_the_folder():
    os.chdir("..")
    return ready
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, npz: Path) -> Path:
    """A folder with a teacher and its cache."""
    folder = tmp_path_factory.mktemp("made")
    teach = ("train-teacher", "--data", f"npz:{npz}", "--model", "convnet-4", "--out", folder / "gen0.pt")
    succeed(*teach, "--epochs", "1", "--batch-size", "16", "-q")
    succeed("dump", "--teacher", folder / "gen0.pt", "--views", "identity", "-q")
    return folder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder has the module ``nets`` and a data set ``d.npz``."""
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("nets", "odd"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    train, test = images(seed=1, count=96), images(seed=2, count=24)
    arrays = {"train_images": train.images, "train_labels": train.labels}
    np.savez("d.npz", **arrays, test_images=test.images, test_labels=test.labels)  # type: ignore[arg-type]


def teacher(name: str) -> Teacher:
    return load_teacher(f"nets:{name}", device=CPU, shape=(3, 3, 10, 10))


@pytest.mark.parametrize("name", ["first", "auxiliary", "named", "only", "attribute", "pooled", "ready"])
def test_logits_are_taken_out_of_what_a_model_returns(name: str) -> None:
    batch = torch.rand(4, 3, 10, 10)
    assert torch.equal(teacher(name).logits(batch), teacher("plain").logits(batch))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("two", "a tuple of (4, 3), (4, 300)"),
        ("nothing", "NoneType"),
        ("number", "()"),
        ("map", "a dict of map (4, 3, 10, 10)"),
    ],
)
def test_what_holds_no_logits_is_said(name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        teacher(name).logits(torch.rand(4, 3, 10, 10))
    assert said in str(caught.value)


def line_of(text: str) -> int:
    """Return the number of the line of ``nets.py`` that holds a text."""
    return next(number for number, line in enumerate(NETS.splitlines(), 1) if text in line)


INPUT = ("--mean", "0", "--std", "1")
DUMP = ("--data", "npz:d.npz", "--views", "identity", "-q", *INPUT)


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("broken", (f"nets.py:{line_of('broken')}", "KeyError", "key"), "BANCACHE_TRACEBACK"),
        ("picky", (f"nets.py:{line_of('assert len')}", "one image at a time"), "BANCACHE_TRACEBACK"),
        ("fails", (f"nets.py:{line_of('fails')}", "RuntimeError", "no weights here"), "BANCACHE_TRACEBACK"),
        ("asks", ("TypeError", "classes"), "BANCACHE_TRACEBACK"),
        ("half", ("nets:half",), ".float()"),
        ("wide", ("(96, 3, 10, 10)",), "--image-size"),
        ("plane", ("nets:plane",), "plain"),
        ("lazy", ("nets:lazy", "1.weight"), "batch"),
        ("skeleton", ("nets:skeleton", "weight"), "weights"),
        ("quantized", ("nets:quantized",), "quantized"),
        ("Listed", ("nets:Listed", "Listed.nets"), "nn.ModuleList"),
        pytest.param("device", (f"nets.py:{line_of('cuda')}",), "--device", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")),
    ],
)  # fmt: skip
def test_a_mistake_in_a_users_module_is_named_by_its_line(
    name: str, said: tuple[str, ...], hint: str
) -> None:
    refuse(2, said, "dump", "--teacher", f"nets:{name}", *DUMP, hint=hint, keep=Path.cwd() / "d.npz")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def net(:\n", ("odd.py:1", "SyntaxError")),
        ("import torch\nimport no_such_package\n", ("odd.py:2", "ModuleNotFoundError", "no_such_package")),
        ("from torch import no_such_name\n", ("odd.py:1", "ImportError")),
        ("import sys\nsys.exit(3)\n", ("odd.py:2", "SystemExit")),
        ("x = 1 / 0\n", ("odd.py:1", "ZeroDivisionError")),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_by_its_line(text: str, said: tuple[str, ...]) -> None:
    Path("odd.py").write_text(text)
    refuse(2, said, "dump", "--teacher", "odd:net", *DUMP, hint="BANCACHE_TRACEBACK")


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("nets.py:plain", "nets:plain"),
        ("nets:", "nets:"),
        ("no_nets:x", "module:function"),
        ("../nets:plain", "nets:plain"),
    ],
)
def test_a_name_that_is_no_module_says_how_to_write_one(spec: str, hint: str) -> None:
    refuse(2, (spec,), "dump", "--teacher", spec, *DUMP, hint=hint)


def test_the_whole_traceback_is_shown_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ("dump", "--teacher", "nets:broken", *DUMP)
    assert "Traceback" not in call(*argv).err
    monkeypatch.setenv("BANCACHE_TRACEBACK", "1")
    assert "Traceback" in call(*argv).err


def test_a_model_without_weights_is_warned_of() -> None:
    assert any("nets:Rule" in said for said in succeed("plan", "nets:Rule", *DUMP)["warnings"])
    assert not any("nets:plain" in said for said in succeed("plan", "nets:plain", *DUMP)["warnings"])


@pytest.mark.parametrize("odd", [{"precision": "bf16"}, {"outputs": "softmax"}])
def test_another_word_than_those_of_precision_and_outputs_is_refused(odd: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(odd.values()))):
        load_teacher("nets:plain", device=CPU, shape=(3, 3, 10, 10), **odd)  # type: ignore[arg-type]


def test_a_scripted_model_is_a_teacher() -> None:
    assert teacher("scripted").logits(torch.rand(4, 3, 10, 10)).shape == (4, 3)


def test_a_teacher_that_leaves_the_current_folder_leaves_what_is_written_there(tmp_path: Path) -> None:
    views = ("--views", "flip", "--num-views", "1")
    succeed("dump", "nets:leaves_the_folder", "--data", "npz:d.npz", *views, "--out", "a.zarr", *INPUT, "-q")
    assert Path.cwd() == tmp_path
    assert (tmp_path / "a.zarr" / "manifest.json").is_file()


def test_every_command_takes_a_teacher_from_the_current_folder() -> None:
    """The module is found whichever command imports it first."""
    named = ("--teacher", "nets:plain")

    def fresh(*argv: str | Path) -> dict[str, object]:
        sys.modules.pop("nets", None)
        sys.path[:] = [part for part in sys.path if part]
        return succeed(*argv, "-q")

    fresh(
        "dump",
        *named,
        "--data",
        "npz:d.npz",
        "--views",
        "flip",
        "--num-views",
        "1",
        "--out",
        "a.zarr",
        *INPUT,
    )
    fresh("plan", *named, "--data", "npz:d.npz", "--views", "flip", "--num-pairs", "8", *INPUT)
    audit = fresh("verify", "a.zarr", *named, "--num-pairs", "8")["audit"]
    assert isinstance(audit, dict)
    assert audit["verdict"] != "mismatch"
    fresh("extend", "a.zarr", "--num-views", "2", "--out", "b.zarr", *named)
    shutil.rmtree(next(Path("b.zarr").glob("*/c/1")))
    assert fresh("repair", "b.zarr", *named)["shards"] == 1
    refuse(2, "nets:plain", "bench", "--cache", "a.zarr", hint="--model")
    fresh("bench", "--cache", "a.zarr", *named, "--model", "convnet-4", "--rounds", "2", "--batch-size", "16")
    score = fresh("evaluate", "nets:plain", "--data", "npz:d.npz", *INPUT)
    assert score["samples"] == 24


def test_foreign_models_are_evaluated_with_weights_and_beside_checkpoints(made: Path) -> None:
    torch.save({"state_dict": teacher("plain").model.state_dict()}, "w.pth")
    alone = succeed("evaluate", "nets:plain", "--weights", "w.pth", "--data", "npz:d.npz", "-q", *INPUT)
    assert alone["members"][0]["path"] == "nets:plain"
    assert 0 <= alone["ensemble"]["accuracy"] <= 1
    both = succeed("evaluate", made / "gen0.pt", "nets:plain", "-q", *INPUT)
    assert len(both["members"]) == 2
    refuse(2, ("nets:plain",), "evaluate", "nets:plain", hint="--data")


def test_what_a_model_prints_does_not_spoil_the_result(made: Path) -> None:
    dumped = call("dump", "--teacher", "nets:prints", *DUMP, "--json")
    assert dumped.json["samples"] == 96
    assert {"building", "a batch"} <= set(dumped.err.splitlines())


def test_a_model_that_ends_the_process_is_a_mistake_in_its_line(made: Path) -> None:
    said = (f"nets.py:{line_of('SystemExit')}", "SystemExit: 7")
    refuse(2, said, "dump", "--teacher", "nets:leaves", *DUMP)


@pytest.mark.parametrize("name", ["trained", "unrecorded"])
def test_batch_statistics_are_said_however_small_their_effect_is(made: Path, name: str) -> None:
    dumped = succeed("dump", "--teacher", f"nets:{name}", *DUMP, "-q")
    assert any("BatchNorm2d 'norm'" in warning for warning in dumped["warnings"])
    scores = succeed("evaluate", f"nets:{name}", "--data", "npz:d.npz", *INPUT, "-q")
    assert any("BatchNorm2d 'norm'" in warning for warning in scores["warnings"])


def test_an_evaluation_says_what_a_foreign_model_is_given_and_that_it_returns_probabilities(
    made: Path,
) -> None:
    plain = succeed("evaluate", "nets:plain", "--data", "npz:d.npz", *INPUT)
    assert "10x10" in plain["notes"][0]
    assert "(the options)" in plain["notes"][0]
    assert plain["warnings"] == []
    (warning,) = succeed("evaluate", "nets:softmax", "--data", "npz:d.npz", *INPUT)["warnings"]
    assert "sum to 1" in warning


REFUSALS = """
import json, sys
from bancache_cli import main
for argv, code in json.loads(sys.argv[1]):
    assert main(argv) == code, argv
    assert "torch" not in sys.modules, argv
"""


def test_a_teacher_that_is_not_there_is_refused_before_torch_is_imported(made: Path) -> None:
    """Refusals in one process, by each command that takes a teacher; so are unknown names of data and views."""
    import json

    cache, gone = str(made / "gen0.zarr"), "nope.pt"
    shutil.copytree(cache, "moved.zarr")
    cases: list[tuple[list[str], int]] = [
        (["dump", "--teacher", gone], 1),
        (["plan", "--teacher", gone], 1),
        (["verify", cache, "--teacher", gone], 1),
        (["repair", cache, "--teacher", gone], 1),
        (["extend", cache, "--num-views", "9", "--out", "x.zarr", "--teacher", gone], 1),
        (["evaluate", gone], 1),
        (["bench", "--cache", cache, "--teacher", gone], 1),
        (["train-student", "--cache", cache, "--teacher", gone], 2),
        (["dump", "--teacher", "resnet18"], 2),
        (["dump", "--teacher", "torchvision:resnet18", "--data", "npz:d.npz", "--views", "flip"], 2),
        (
            [
                "dump",
                "--teacher",
                "timm:resnet18",
                "--weights",
                gone,
                "--data",
                "npz:d.npz",
                "--views",
                "flip",
            ],
            1,
        ),
        (["dump", "--teacher", "none.pt2", "--data", "npz:d.npz", "--views", "flip"], 1),
        (["evaluate", "torchvision:resnet18", "--data", "npz:d.npz"], 2),
        (["dump", "--teacher", "nets:plain"], 2),
        (["dump", "--teacher", str(made / "gen0.pt"), "--data", "nope:x"], 2),
        (["plan", "--teacher", str(made / "gen0.pt"), "--views", "nope"], 2),
        (["evaluate", str(made / "gen0.pt"), "--data", "nope"], 2),
    ]
    done = subprocess.run(
        [sys.executable, "-c", REFUSALS, json.dumps(cases)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("error: ") == len(cases)


@pytest.mark.parametrize(
    ("name", "code", "hint"),
    [
        ("resnet18", 2, "torchvision:resnet18 or timm:resnet18"),
        ("wrn-28-2", 2, "train-teacher --data SOURCE --model wrn-28-2"),
        ("gen1.pt", 1, "gen0.pt"),
        ("folder", 1, "--weights folder"),
        ("model.safetensors", 1, "--weights model.safetensors"),
    ],
)
def test_a_teacher_that_is_misspelt_gets_the_nearest_form(name: str, code: int, hint: str) -> None:
    Path("gen0.pt").touch()
    Path("folder").mkdir()
    Path("model.safetensors").touch()
    refuse(code, (name,), "dump", "--teacher", name, hint=hint)


def test_a_cache_whose_teacher_moved_says_how_to_name_it(made: Path) -> None:
    from contracts.hostile import reseal

    shutil.copytree(made / "gen0.zarr", "a.zarr")
    reseal(Path("a.zarr"), lambda stored: stored["promise"]["teacher"].update(path="/gone/gen0.pt"))
    for command in (("repair", "a.zarr"), ("extend", "a.zarr", "--num-views", "9", "--out", "b.zarr")):
        refuse(1, ("/gone/gen0.pt",), *command, hint="--teacher")


def test_the_example_of_a_dump_from_python_runs_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block in its docstring, which the page on the Python interface shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    torch.save(net.state_dict(), "net.pth")
    Path("our_models.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    monkeypatch.delitem(sys.modules, "our_models", raising=False)
    told = inspect.getdoc(bc.DumpSettings) or ""
    block = [line for line in told.partition("Attributes:")[0].splitlines() if line.startswith("    ")]
    exec("\n".join(line[4:] for line in block), {"bc": bc})
    assert bc.open_cache("net.zarr").manifest.num_views == 9
    with pytest.raises(UsageError, match="'gpu'"):
        load_teacher("our_models:net", weights="net.pth", shape=(10, 1, 8, 8), device="gpu")


def test_a_model_of_other_classes_is_not_evaluated() -> None:
    Path("more.py").write_text(
        "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(300, 7))\n"
    )
    argv = ("evaluate", "more:net", "--data", "npz:d.npz", "--mean", "data")
    refuse(4, ("more:net", "7", "3"), *argv, hint="--data")
