"""What people are told while a program is being compiled."""

import json

import jax
import pytest

from flcl import waiting
from flcl.evaluate.judge import Judge
from flcl.settings import Judge as JudgeSettings


class Program:
    """Stands for a compiled function."""


@pytest.fixture
def folder(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def clock(monkeypatch):
    """Each look at the clock is 40 seconds after the one before."""
    times = iter(range(0, 100_000, 40))
    monkeypatch.setattr(waiting.time, "monotonic", lambda: next(times))


def call(program, lines, what="the sampler", about=(16, "small"), form=None):
    with waiting.told(lines.append), waiting.first_call(program, what, about, form):
        pass


def test_the_first_call_is_told_and_the_next_process_knows_the_seconds(folder, clock):
    lines, program = [], Program()
    call(program, lines)
    assert lines == [
        "compiling the sampler, once: seconds for a small network, minutes for a large one"
    ]
    call(program, lines)
    assert len(lines) == 1, "it is compiled already"
    call(program, lines, form=7)
    assert len(lines) == 2, "for another shape it is compiled again"
    call(Program(), lines)  # as in another process
    assert lines[2:] == ["compiling the sampler: 40 s last time"]
    call(Program(), lines, about=(32, "large"))
    assert "once" in lines[3], "nothing is known of another size"
    assert waiting.spoken(125.4) == "2 min 5 s"


def test_a_quick_program_is_not_worth_a_line(folder, monkeypatch):
    monkeypatch.setattr(waiting.time, "monotonic", iter([0.0, 0.6]).__next__)
    lines = []
    call(Program(), lines)
    monkeypatch.undo()
    call(Program(), lines)
    assert len(lines) == 1


def test_nobody_listens_and_nothing_is_written(folder):
    with waiting.first_call(Program(), "the sampler", ()):
        pass
    with waiting.told(None), waiting.first_call(Program(), "the sampler", ()):
        pass
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        *("[1]", "{", "x" * 2**19),
        *('{"%s": "31"}', '{"%s": NaN}', '{"%s": -3}', '{"%s": true}', '{"%s": 1e9}'),
    ],
)
def test_a_wrong_file_counts_as_absent(folder, clock, content):
    lines = []
    call(Program(), lines)
    name = next(iter(json.loads((folder / waiting.NAME).read_text())))
    (folder / waiting.NAME).write_text(content.replace("%s", name))
    call(Program(), lines)
    assert "once" in lines[1]
    call(Program(), lines)
    assert lines[2] == "compiling the sampler: 40 s last time", "the file is written again"


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, clock):
    (tmp_path / "file").write_text("")
    before = jax.config.jax_compilation_cache_dir
    for place in (str(tmp_path / "file"), None, "gs://bucket/cache"):
        lines = []
        jax.config.update("jax_compilation_cache_dir", place)
        try:
            call(Program(), lines)
        finally:
            jax.config.update("jax_compilation_cache_dir", before)
        assert len(lines) == 1


def test_an_error_of_the_call_keeps_no_time(folder, clock):
    program = Program()
    with pytest.raises(ValueError), waiting.told(print), waiting.first_call(program, "it", ()):
        raise ValueError
    assert not (folder / waiting.NAME).exists()
    lines = []
    call(program, lines)
    assert len(lines) == 1


def test_the_judge_tells_its_programs(folder):
    """Abstract: the step and the answers of a real judge ask before they are compiled."""
    judge = Judge(JudgeSettings(width=1, stages=1, batch_size=2, crop=0), 2, (2, 2, 1), 0)
    judge._step = lambda state, *rest: (state, 0.5)
    judge._predict = lambda *arguments: ([0, 1], None)
    judge._init = lambda key: type("State", (), {"params": 0, "batch_stats": 0})()
    import numpy as np

    from flcl.data.selection import everything

    images = everything(np.zeros((2, 2, 2, 1), np.uint8), [0, 1])
    lines = []
    with waiting.told(lines.append):
        judge.train(images, steps=2, seed_name="x")
        list(judge._answers({}, images, np.ones(2, bool)))
    assert [line.split(",")[0].split(":")[0] for line in lines] == [
        "compiling the training step of the judge",
        "compiling the answers of the judge",
    ]
