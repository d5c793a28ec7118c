"""What is stored, and what is said when it cannot be read."""

import asyncio
import collections
import errno
import gc
import os
import resource
import shutil
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl import files, stopping
from flcl.devices import mesh as meshes
from flcl.devices import sharding
from flcl.runs.saved import checkpoint
from flcl.runs.saved.checkpoint import Checkpoints, DamagedError, _Manager, digest
from flcl.stopping import StoppedError

TREE = {"kernel": jnp.arange(32.0).reshape(4, 8), "bias": jnp.ones(3)}


def target_of(tree, mesh):
    """Abstract arrays with the shardings of a mesh."""
    return jax.tree.map(
        lambda v, s: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=s),
        tree,
        sharding.of_tree({"x": tree}, mesh)["x"],
    )


def test_a_task_comes_back_on_another_number_of_devices(tmp_path):
    tree = jax.device_put(TREE, sharding.of_tree({"x": TREE}, meshes.make_mesh(fsdp=4))["x"])
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save_task(1, tree)
    for mesh in (meshes.make_mesh(devices=jax.devices()[:1]), meshes.make_mesh(fsdp=2)):
        with Checkpoints(tmp_path, read_only=True) as checkpoints:
            got = checkpoints.restore_task(1, target_of(TREE, mesh))
        jax.tree.map(np.testing.assert_array_equal, got, TREE)
        assert got["kernel"].sharding.mesh == mesh


def test_the_newest_two_states_inside_a_task_are_kept(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.running() is None
        for position in (10, 20, 30):
            checkpoints.save_running(position, TREE, {"task": 1, "step": position})
    with Checkpoints(tmp_path) as checkpoints:
        position, meta = checkpoints.running()
        assert (position, meta["task"], meta["step"]) == (30, 1, 30)
        assert meta["digest"] == digest(TREE)
        checkpoints.drop_running(30)
        assert checkpoints.running()[0] == 20
        checkpoints.drop_running()
        assert checkpoints.running() is None


def test_the_digest_sees_names_shapes_types_and_values():
    trees = [
        {"a": jnp.zeros(4)},
        {"b": jnp.zeros(4)},
        {"a": jnp.zeros((2, 2))},
        {"a": jnp.zeros(4, jnp.int32)},
        {"a": jnp.zeros(4).at[3].set(1e-30)},
    ]
    assert len({digest(tree) for tree in trees}) == len(trees)


def test_arrays_of_another_save_are_told_by_the_digest(tmp_path):
    """Orbax reads them without a complaint: names, shapes and types are the same."""
    for name, tree in (("ours", TREE), ("other", jax.tree.map(lambda v: v + 1, TREE))):
        with Checkpoints(tmp_path / name) as checkpoints:
            checkpoints.save_task(1, tree)
    shutil.rmtree(tmp_path / "ours" / "tasks" / "1" / "state")
    shutil.copytree(
        tmp_path / "other" / "tasks" / "1" / "state", tmp_path / "ours" / "tasks" / "1" / "state"
    )
    with (
        Checkpoints(tmp_path / "ours") as checkpoints,
        pytest.raises(DamagedError, match="tasks/1 changed on disk"),
    ):
        checkpoints.restore_task(1, target_of(TREE, meshes.make_mesh()))


def test_another_shape_is_refused_and_not_padded(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save_task(1, TREE)
        longer = {**TREE, "bias": jnp.ones(5)}
        with pytest.raises(DamagedError, match=r"tasks/1 holds .*bias.* as \(3,\) .*: delete"):
            checkpoints.restore_task(1, target_of(longer, meshes.make_mesh()))


def test_bytes_of_a_task_are_those_on_disk(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save_task(1, {"kernel": jax.random.normal(jax.random.key(0), (64, 64))})
        assert 64 * 64 * 4 * 0.8 < checkpoints.bytes_of_task(1) < 64 * 64 * 4 * 2


ABSTRACT = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), TREE)


@pytest.fixture
def saved(tmp_path):
    """A folder with a task, a state inside a task and a judge."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save_task(1, TREE)
        checkpoints.save_running(10, TREE, {"task": 2, "step": 4})
        checkpoints.save_judge(TREE, {"real": [0, 1, 2]})
    return tmp_path


def files_in(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


READS = {
    "task": lambda checkpoints: checkpoints.restore_task(1, ABSTRACT),
    "place": lambda checkpoints: checkpoints.running(),
    "running": lambda checkpoints: checkpoints.restore_running(10, ABSTRACT),
    "judge": lambda checkpoints: checkpoints.restore_judge(ABSTRACT, {"real": [0, 1, 2]}),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_stop_while_a_save_is_read_waits_and_leaves_all_saves(saved, monkeypatch, read):
    before = files_in(saved)
    real, done = _Manager.restore, []

    def stopped(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        done.append(real(self, *args, **kwargs))
        return done[-1]

    monkeypatch.setattr(_Manager, "restore", stopped)
    with stopping.on_signals(), Checkpoints(saved) as checkpoints, pytest.raises(StoppedError):
        read(checkpoints)
    assert len(done) == 1  # Orbax finished what it had begun
    assert files_in(saved) == before


PASSING = [
    PermissionError(errno.EACCES, "Permission denied", "x"),
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ESTALE, "Stale file handle"),
    ValueError("UNKNOWN: Failed to open: \"/x\": Input/output error [os_error_code='5']"),
    ValueError("RESOURCE_EXHAUSTED: Too many open files [os_error_code='24']"),
    MemoryError(),
    TimeoutError("no answer"),
]


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("error", PASSING, ids=str)
def test_an_error_that_may_pass_is_no_damage(saved, monkeypatch, read, error):
    before = files_in(saved)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(_Manager, "restore", fail)
    with Checkpoints(saved) as checkpoints, pytest.raises(OSError) as raised:
        read(checkpoints)
    assert str(saved) in str(raised.value) and "delete" not in str(raised.value)
    assert raised.value.errno is not None
    assert files_in(saved) == before


def test_only_a_save_that_was_read_whole_is_damaged(saved, monkeypatch):
    """Orbax gives no reason here; the disk does."""

    def unclear(*_, **__):
        raise KeyError("state")

    def bad_disk(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(_Manager, "restore", unclear)
    with Checkpoints(saved) as checkpoints:
        with pytest.raises(DamagedError, match=r"tasks/1 cannot be read \(KeyError: 'state'\)"):
            checkpoints.restore_task(1, ABSTRACT)
        monkeypatch.setattr(files, "read_bytes", bad_disk)
        with pytest.raises(OSError, match="Input/output error: '.*tasks/1/_CHECKPOINT_METADATA'"):
            checkpoints.restore_task(1, ABSTRACT)


@pytest.fixture
def small_disk():
    """No file may be larger than 4 KiB: a write then fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("moment", ["save", "end", "stop"])
def test_a_save_that_fails_is_one_error_and_leaves_the_ones_before(
    saved, small_disk, moment, capfd, caplog
):
    large = {**TREE, "kernel": np.random.default_rng(0).random((64, 64), np.float32)}
    with (
        pytest.raises(OSError, match="File too large: '.*running") as raised,
        stopping.on_signals(),
        Checkpoints(saved) as checkpoints,
    ):
        small_disk()
        checkpoints.save_running(20, large, {"task": 2, "step": 14})
        if moment == "save":
            checkpoints.save_running(30, large, {"task": 2, "step": 24})
        elif moment == "stop":  # not all is saved, so this is no good stop
            os.kill(os.getpid(), signal.SIGTERM)
    assert raised.value.errno == errno.EFBIG
    with Checkpoints(saved) as checkpoints:
        assert checkpoints.running()[0] == 10
        assert checkpoints.tasks() == [1]
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_reads_that_fail_after_the_first_say_nothing(saved, capfd, caplog):
    """A damaged manifest fails for every array, at any time."""
    manifest = saved / "tasks" / "1" / "state" / "manifest.ocdbt"
    manifest.write_bytes(manifest.read_bytes()[:57])
    (saved / "tasks" / "1" / "_CHECKPOINT_METADATA").write_text("{")
    with Checkpoints(saved) as checkpoints:
        for _ in range(5):
            with pytest.raises(DamagedError, match="tasks/1 cannot be read"):
                checkpoints.restore_task(1, ABSTRACT)
    gc.collect()
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_only_late_answers_of_the_store_are_silent():
    lost = collections.namedtuple("lost", "exc_value object")
    shown = []
    hook = checkpoint._drop_late_answers(shown.append)
    hook(lost(RuntimeError("Event loop is closed"), None))
    half_made = asyncio.BaseEventLoop.__del__
    hook(lost(AttributeError("_ssock"), half_made))
    assert shown == []
    others = [lost(RuntimeError("Event loop is closed"), "a task"), lost(ValueError("x"), None)]
    others += [lost(AttributeError("_ssock"), None), lost(ValueError("x"), half_made)]
    for other in others:
        hook(other)
    assert shown == others


def test_files_and_threads_do_not_grow_with_the_tasks(tmp_path):
    def in_use() -> tuple[int, int]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    with Checkpoints(tmp_path) as checkpoints:
        for task in range(1, 11):
            checkpoints.save_running(task, TREE, {"task": task, "step": 1})
            checkpoints.save_task(task, TREE)
            checkpoints.drop_running()
            if task == 2:
                two = in_use()
        assert in_use() <= two
    assert files_in(tmp_path / "running") == []
