"""What every test runs on: four fake CPU devices, strict shapes, a cache of compiled programs."""

import contextlib
import gc
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEVICES = 4


_KEPT_BYTES = 2 * 2**30


def _cache_folder() -> Path:
    """Where compiled programs are kept from one run of the tests to the next.

    They are apart for each processor, Python and JAX. A run begins with what is newest in it, at
    most 2 GiB. FLCL_TEST_CACHE names another folder.
    """
    from importlib.metadata import version

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else [platform.processor()]
    # A program compiled for instructions that another machine lacks would crash there.
    chip = sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))})
    identity = "\n".join([*chip, sys.version, version("jaxlib")])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FLCL_TEST_CACHE") or Path(home) / "flcl-tests") / f"jax-{digest}"


def _prune(folder: Path) -> None:
    """Removes the programs that have not been read for longest."""
    entries = [(path.stat(), path) for path in folder.glob("*")] if folder.is_dir() else []
    room = _KEPT_BYTES
    for status, path in sorted(entries, key=lambda entry: -entry[0].st_atime):
        room -= status.st_size
        if room < 0:
            path.unlink(missing_ok=True)


# Before the first import of JAX, and inherited by every program that a test starts.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache_folder()))
# Also small programs: a process of a run compiles a hundred of them.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
# Without the place of every operation in Python, lowering a program is shorter.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# Tracing leaves little to collect: fewer collections save one second in twenty.
gc.set_threshold(100_000, 20, 20)
# Tests compile far more than they compute: less optimisation halves the whole suite's time.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("COLUMNS", "120")
# Otherwise the compiler for TPUs leaves a folder of logs.
os.environ.setdefault("TPU_LOG_DIR", "disabled")

import jax  # noqa: E402

from flcl import compiling  # noqa: E402

# Many different runs are made in this process, and most of them more than once.
compiling._PROGRAMS = 24

if os.environ["JAX_PLATFORMS"] == "cpu":
    jax.config.update("jax_num_cpu_devices", DEVICES)
jax.config.update("jax_numpy_rank_promotion", "raise")

if "PYTEST_XDIST_WORKER" not in os.environ:
    _prune(Path(os.environ["JAX_COMPILATION_CACHE_DIR"]))

# Each is minutes of one process after another: begun last, they would end long after all others.
LONGEST = (
    "test_kill.py",
    "test_processes.py",
    "test_experiment.py",
    "test_configs.py",
    "test_step.py",
    "test_items.py",
    "test_classifier.py",
    "test_exchanges.py",
    "test_configs_classifiers.py",
    "test_opened.py",
    "test_unet.py",
)


def pytest_collection_modifyitems(items):
    """The longest files first: of several workers the last one then ends soon after the others."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """After a file, what is alive is not looked at again: programs are millions of objects.

    Otherwise every `gc.collect` of a later test takes seconds.
    """
    result = yield
    if nextitem is None or nextitem.path != item.path:
        with warnings.catch_warnings():
            # A test that ends a run inside a write leaves the file open.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        gc.freeze()
    return result


@pytest.fixture(autouse=True)
def _programs_of_its_own(request):
    """A test that changes code neither uses programs from before nor leaves its own to others.

    Changed variables of the environment and another current folder change no code.
    """
    if "monkeypatch" not in request.fixturenames:
        yield
        return
    patch = request.getfixturevalue("monkeypatch")
    entered = []
    with contextlib.ExitStack() as stack:

        def with_other_programs(change):
            def changed(*arguments, **options):
                if not entered:
                    entered.append(stack.enter_context(compiling.other_programs()))
                return change(*arguments, **options)

            return changed

        patch.setattr = with_other_programs(patch.setattr)
        patch.context = with_other_programs(patch.context)
        yield


@pytest.fixture(scope="session", autouse=True)
def temporary_files(tmp_path_factory):
    """Temporary files of tests and of the programs that they start go where pytest cleans up.

    TFDS leaves an empty folder for each builder, and a program that is killed leaves all of them.
    """
    folder = str(tmp_path_factory.mktemp("temporary"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_pictures():
    """Runs draw their page at the end only, and coarsely: tests/report looks at all of them.

    `quick_pictures(False)` draws all pages as users get them, `quick_pictures(True)` few again.
    """
    from flcl.report import page
    from flcl.report.pictures import canvas

    patch, write = pytest.MonkeyPatch(), page.write_page

    def at_the_end(workdir, results=None):
        return write(workdir, results) if results is None or results.complete else None

    def switch(on: bool) -> None:
        patch.undo()
        if on:
            patch.setattr(page, "write_page", at_the_end)
            patch.setattr(canvas, "DPI", 30)

    switch(True)
    yield switch
    switch(False)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def launch(launch_once):
    """Runs `launch/NAME.py` as a user does: `launch("train", "--workdir=...", code=0)`."""
    return launch_once


@pytest.fixture(scope="session")
def launch_once():
    """As `launch`, for fixtures that live longer than a test.

    Returns the finished process with its text output; fails when the exit code is not `code`.
    """

    def run(name: str, *words, code: int = 0, cwd=ROOT, env=None) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [sys.executable, ROOT / "launch" / f"{name}.py", *map(str, words)],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    return run


@pytest.fixture
def smoke_runs(launch):
    """Runs the first of some smoke variants by its command line, and lowers the programs of others.

    Names and keys that change no result, such as threads, make no other variant: tests/runs trains
    with all values that differ. `smoke_runs([(file, settings), ...], workdir)` returns the settings
    that the run left behind.
    """

    def run(wanted: list, workdir: Path):
        import dataclasses

        from flcl.cost.programs import programs_of
        from flcl.runs.saved.differences import decisive
        from flcl.runs.setup import prepare
        from flcl.settings import bridge, formats

        distinct = {}
        for name, settings in wanted:
            values = decisive(bridge.as_dict(dataclasses.replace(settings, name="smoke")))
            distinct.setdefault(json.dumps(values, sort_keys=True), (name, settings))
        assert 1 < len(distinct) < len(wanted)
        (name, settings), *others = distinct.values()
        for _, other in others:
            setup = prepare(other)[0]
            for program in programs_of(setup.method):
                program.lower(setup.method, setup.mesh, None)
        launch("train", f"--config=configs/{name}:smoke", f"--workdir={workdir}")
        results = json.loads((workdir / "results.json").read_text())
        assert results["complete"] is True and len(results["matrix"]) == 2
        assert all(0.0 <= value <= 1.0 for value in results["matrix"][-1])
        stored = bridge.from_dict(formats.read(workdir))
        model = settings.model
        if hasattr(model, "normalize"):  # what was looked up in the weights file is filled in
            names = ("normalize", "sha256", "position_resize")
            looked_up = {name: getattr(stored.model, name) for name in names}
            model = dataclasses.replace(model, **looked_up)
        else:
            assert list((workdir / "samples").glob("*.png"))
        assert stored == dataclasses.replace(settings, model=model)
        return stored

    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """An `npz:` data set of six classes."""
    import tiny

    return tiny.write_data(tmp_path_factory.mktemp("data") / "six.npz")


@pytest.fixture(scope="session")
def finished(data, tmp_path_factory):
    """Workdir of a complete FunLoRA run of three tasks."""
    import tiny

    import flcl

    workdir = tmp_path_factory.mktemp("runs") / "funlora"
    results = flcl.run(tiny.settings_of(data), workdir)
    stored = json.loads((workdir / "results.json").read_text())
    assert json.loads(json.dumps(results)) == stored
    return workdir
