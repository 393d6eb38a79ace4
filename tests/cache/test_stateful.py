"""However writing, leaving, damage, coming back and growing are mixed, the end is that of an undisturbed writer."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from contracts.damage import DAMAGES
from contracts.failing import Killed
from contracts.killing import tree
from contracts.small_cache import facts, fields, make_manifest, summarize, write
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bancache.cache.import_shards import import_shards, shards_of
from bancache.cache.layout import Layout
from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.cache.writer import CacheWriter
from bancache.errors import CacheDamagedError

SMALLER, LARGER = make_manifest(samples=5, num_views=4), make_manifest(samples=5, num_views=6)
FILES = ("q/c/{}/0/0", "shift/c/{}/0", ".regions/00000{}.json", "zarr.json", "q/zarr.json")
WAYS = sorted(set(DAMAGES) - {"a folder"})


class Life(RuleBasedStateMachine):
    """One cache and the writers that come and go."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="bancache-test-", dir=memory if memory.is_dir() else None))
        self.path = self.folder / "a.zarr"
        self.session = contextlib.ExitStack()
        self.writer: CacheWriter | None = None
        self.manifest = SMALLER
        self.recorded: set[int] = set()
        self.harmed: set[int] = set()

    @initialize()
    def begin(self) -> None:
        self.expected = {
            manifest.num_views: tree(write(self.folder / f"{manifest.num_views}.zarr", manifest))
            for manifest in (SMALLER, LARGER)
        }

    @precondition(lambda self: self.writer is None)
    @rule()
    def come(self) -> None:
        """A writer takes what is recorded and unharmed for done, and nothing else."""
        self.writer = self.session.enter_context(open_writer(self.path, self.manifest))
        if self.writer is not None:
            done = self.recorded - self.harmed
            assert {shard.index for shard in self.writer.pending()} == set(
                range(self.manifest.num_views)
            ) - done
            self.recorded, self.harmed = done, set()

    @precondition(lambda self: self.writer is not None)
    @rule(choice=st.randoms(use_true_random=False), count=st.integers(1, 3))
    def work(self, choice: object, count: int) -> None:
        assert self.writer is not None
        pending = self.writer.pending()
        choice.shuffle(pending)  # type: ignore[attr-defined]
        for shard in pending[:count]:
            self.writer.write_shard(shard, fields(self.manifest, shard), facts(shard))
            self.recorded.add(shard.index)

    @precondition(lambda self: self.writer is not None)
    @rule(how=st.sampled_from(["in order", "in disorder"]))
    def leave(self, how: str) -> None:
        self.session.__exit__(*((Killed, Killed(), None) if how == "in disorder" else (None, None, None)))
        self.writer = None
        if how == "in disorder":
            (self.path / ".writer.json").write_text('{"pid": 1')
            (self.path / "q" / "zarr.json.0f0f0f0f.partial").write_text("half")

    @precondition(lambda self: self.writer is None and self.recorded - self.harmed)
    @rule(data=st.data())
    def harm(self, data: st.DataObject) -> None:
        """A recorded file is damaged between two writers; a swap damages another shard's file, too."""
        index = data.draw(st.sampled_from(sorted(self.recorded - self.harmed)))
        other = data.draw(st.sampled_from(sorted(self.recorded - self.harmed)))
        file = data.draw(st.sampled_from(FILES))
        way = data.draw(st.sampled_from(WAYS if index != other else [w for w in WAYS if w != "swapped"]))
        if "{}" not in file:
            DAMAGES["flipped"](self.path / file, self.path)
            return
        DAMAGES[way](self.path / file.format(index), self.path / file.format(other))
        for aside in self.path.rglob("*.aside"):
            aside.rename(self.folder / "aside")
        self.harmed |= {index, other} if way == "swapped" else {index}

    @precondition(lambda self: self.writer is not None and not self.writer.pending())
    @rule(then=st.sampled_from(["grow", "begin anew"]))
    def finish(self, then: str) -> None:
        assert self.writer is not None
        self.writer.finish(summarize)
        self.leave("in order")
        assert tree(self.path) == self.expected[self.manifest.num_views]
        if then == "grow" and self.manifest is SMALLER:
            self.grow()
            return
        shutil.rmtree(self.path)
        self.manifest, self.recorded = SMALLER, set()

    def grow(self) -> None:
        """A larger cache begins with the shards of the finished one."""
        cache = open_cache(self.path)
        shards = Layout(SMALLER).shards()
        import_shards(self.folder / "larger", LARGER, shards_of(cache, {r.index: facts(r) for r in shards}))
        shutil.rmtree(self.path)
        (self.folder / "larger").rename(self.path)
        self.manifest, self.recorded = LARGER, {shard.index for shard in shards}

    @invariant()
    def is_never_taken_for_complete(self) -> None:
        if self.path.exists():
            with pytest.raises(CacheDamagedError):
                open_cache(self.path)

    def teardown(self) -> None:
        self.session.close()
        try:
            if hasattr(self, "expected"):
                assert tree(write(self.path, self.manifest)) == self.expected[self.manifest.num_views]
        finally:
            shutil.rmtree(self.folder)


Life.TestCase.settings = settings(
    max_examples=10,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    # Twenty steps can be read as they are; making them fewer takes minutes.
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
test_life = Life.TestCase
