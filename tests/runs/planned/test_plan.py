"""A run of some minutes: what is chosen is stored once, and every later call keeps it."""

import dataclasses
import json

import pytest
import tiny

import flcl
from flcl.evaluate.judge import steps_for
from flcl.methods.base import Method
from flcl.report import command
from flcl.runs.planned import needs, plan, stored
from flcl.runs.planned.measuring import Measured, Seconds, seconds_of
from flcl.runs.setup import prepare
from flcl.settings import bridge, formats
from flcl.sweep import cells

FAST = Measured(
    phases={1: Seconds(9.0, 0.5), 2: Seconds(7.0, 0.25)},
    chunk=Seconds(5.0, 2.0),
    judge=Seconds(4.0, 0.125),
    judged=Seconds(1.0, 0.001),
)


def asked(data, **changes):
    """A tiny run with far more steps than fit into a minute by `FAST`."""
    steps = {"phase1__steps": 1000, "phase2__steps": 200, "judge__epochs": 100.0}
    return tiny.settings_of(data, **{"runtime__minutes": 1.0, **steps, **changes})


@pytest.fixture
def measured(monkeypatch):
    """Measurements that take no time; the list has the methods that were measured."""
    seen: list[Method] = []

    def measure(setup, advance):
        seen.append(setup.method)
        return FAST

    monkeypatch.setattr(plan, "measure", measure)
    return seen


def planned(run, workdir):
    setup, _ = prepare(run)
    return plan.planned(setup, workdir, plan.time.monotonic(), lambda *_: lambda *_: None)


def keep(workdir, run, trained=True):
    """What a first process leaves: its settings, and perhaps a save."""
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(json.dumps(formats.to_store(run)))
    if trained:
        (workdir / "checkpoints" / "running" / "4").mkdir(parents=True)


def test_the_needs_of_a_generator_are_its_parts_times_their_numbers(data):
    run = asked(data, judge__repeats=2)
    setup, _ = prepare(run)
    needed = needs.of(setup, FAST)
    assert needed.steps == 1000 * 0.5 + 2 * 200 * 0.25
    # Six classes of 8 samples, 2 + 4 + 6 in the tasks; the judge of the real images knows six.
    steps = [steps_for(run.judge, 8 * classes) for classes in (2, 4, 6)]
    assert needed.judging == pytest.approx(0.125 * (steps[-1] + 2 * sum(steps)))
    # A chunk of 8 for each class; each sample is answered for after each task, and compared once.
    assert needed.drawing == pytest.approx(6 * 2.0 + 0.001 * 8 * (2 + 4 + 6 + 6))
    tests, train = 8 * (2 + 4 + 6), 24 * 6
    assert needed.fixed == pytest.approx(3 * 3.0 + 0.001 * (2 * tests + 2 * 48 + train))


def test_straight_paths_have_steps_and_pairs_of_their_own(data):
    """Six classes of 20 pairs in chunks of 8; 6 evaluations of a pair, 2 of a sample."""
    stage = {"steps": 10, "pairs": 20, "num_steps": 3}
    run = asked(data, **{f"straighten__{name}": value for name, value in stage.items()})
    plain, longer = (needs.of(prepare(each)[0], FAST) for each in (asked(data), run))
    drawing = (6 / 2) * 6 * 3 * 2.0
    assert longer.fixed - plain.fixed == pytest.approx(7.0 + 5.0 + 3 * 10 * 0.25 + drawing)
    assert dataclasses.replace(longer, fixed=plain.fixed) == plain
    # With a trunk from a file there is no phase 1.
    later = FAST._replace(phases={2: FAST.phases[2]})
    assert needs._straight_paths(prepare(run)[0], later) > 0


def test_replay_draws_old_classes_again(data):
    run = tiny.settings_of(data, "generative_replay", replay__images_per_class=8)
    setup, _ = prepare(run)
    needed = needs.of(setup, FAST)
    # All classes after each task, and the old ones before tasks 2 and 3.
    assert needed.drawing >= (2 + 4 + 6) * 2.0 and needed.fixed >= (2 + 4) * 2.0


def test_the_needs_of_a_classifier(data):
    run = tiny.classifier_of(data, rank__probe_epochs=1.0, rank__holdout=0.25)
    setup, _ = prepare(run)
    seconds = Measured(
        phases={1: Seconds(0, 1.0), 2: Seconds(0, 2.0)},
        features=Seconds(0, 0.01),
        heads=Seconds(0, 3.0),
    )
    needed = needs.of(setup, seconds)
    assert needed.steps == 6 * (1.0 + 2 * 2.0)  # two epochs of 48 images in batches of 16
    probed = [task for task in setup.data.stream.tasks if setup.method.preliminary(task)]
    short = sum({1: 1.0, 2: 2.0}[setup.method.phase(task)] * 2 + 0.12 for task in probed)
    passes = sum(48 * (3 if setup.method.corrects(task) else 1) for task in setup.data.stream.tasks)
    tests = 16 + 32 + 48
    assert needed.fixed == pytest.approx(3 * (3.0 + 3.0) + 0.01 * (passes + tests) + short)
    assert needed.judging == needed.drawing == 0


def test_the_first_call_chooses_and_every_other_one_keeps_it(data, tmp_path, measured):
    first = planned(asked(data), tmp_path)
    lengths = stored.planned_keys(first.run)
    assert 2 <= lengths["phase2.steps"] < lengths["phase1.steps"] < 1000
    assert lengths["phase1.steps"] == pytest.approx(5 * lengths["phase2.steps"], abs=5)
    assert 10 <= lengths["judge.epochs"] < 100
    assert first.method.run == first.run and "planned for 1 minutes: phase1.steps=" in first.note
    kept = stored.read(tmp_path)
    assert kept.chosen == lengths and kept.asked["phase1.steps"] == 1000
    assert kept.seconds["phase2_step"] == 0.25 and kept.seconds["phase2_step_first"] == 7.0
    # Killed before the first save, and after it; more minutes change nothing then.
    again = planned(asked(data), tmp_path)
    keep(tmp_path, first.run)
    later = planned(asked(data, runtime__minutes=50.0), tmp_path)
    assert len(measured) == 1 and again.run == first.run
    assert dataclasses.replace(later.run, runtime=first.run.runtime) == first.run
    # A lost or damaged plan is also in the settings of the run.
    (tmp_path / stored.NAME).write_text("{")
    assert planned(asked(data), tmp_path).run == first.run


def test_other_settings_are_measured_again_until_something_is_trained(data, tmp_path, measured):
    first = planned(asked(data), tmp_path)
    keep(tmp_path, first.run, trained=False)
    planned(asked(data, runtime__minutes=50.0), tmp_path)
    planned(asked(data, model__width=16), tmp_path)
    assert len(measured) == 3
    (tmp_path / "checkpoints" / "tasks" / "1").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"another config \(phase1.steps: 1000 -> 999\)"):
        planned(asked(data, phase1__steps=999, model__width=16), tmp_path)
    assert len(measured) == 3


def test_a_run_that_began_without_minutes_is_refused(data, tmp_path, measured):
    keep(tmp_path, asked(data, runtime__minutes=0.0))
    with pytest.raises(ValueError, match="began without it, and its steps are fixed; leave it out"):
        planned(asked(data), tmp_path)
    assert measured == []


def test_minutes_that_are_too_few_end_before_anything_is_written(data, tmp_path, measured):
    with pytest.raises(ValueError, match="runtime.minutes=0.1: on this machine .* are needed"):
        planned(asked(data, runtime__minutes=0.1), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}


def test_without_minutes_nothing_happens(data, tmp_path, measured):
    setup, _ = prepare(asked(data, runtime__minutes=0.0))
    assert plan.planned(setup, tmp_path, 0.0, None) is setup
    task = setup.data.stream.tasks[1]
    assert setup.compiled(task) is setup.of_task(task).method


def test_programs_of_a_plan_depend_on_no_length(data):
    one, other = (prepare(asked(data, phase1__steps=n, judge__epochs=9.0 * n))[0] for n in (5, 90))
    task = one.data.stream.tasks[0]
    assert one.compiled(task) is other.compiled(task)
    assert one.of_task(task).method is not other.of_task(task).method
    guide = asked(data, method="guide", phase1__steps=5)
    assert stored.without_lengths(guide) == guide


def test_a_stranger_s_plan_changes_no_other_key(data, tmp_path):
    run = asked(data)
    with pytest.raises(ValueError, match="'data.source' is no key that a plan may change"):
        stored.with_lengths(run, {"data.source": 1.0})
    with pytest.raises(ValueError, match="phase1.steps=0: must be at least 1"):
        stored.with_lengths(run, {"phase1.steps": 0.0})


def test_the_command_of_a_planned_run_repeats_its_lengths(data):
    run = asked(data, phase1__steps=77)
    text = command.command(formats.to_store(run))
    assert "--config.phase1.steps=77" in text and "minutes" not in text


def test_a_sweep_goes_on_with_a_planned_cell(data, tmp_path):
    run = asked(data)
    keep(tmp_path, stored.with_lengths(run, {"phase1.steps": 30.0, "judge.epochs": 20.0}))
    cells._check_folder("a", tmp_path, run)
    with pytest.raises(ValueError, match="seed: 0 -> 1"):
        cells._check_folder("a", tmp_path, dataclasses.replace(run, seed=1))


def test_a_sweep_does_not_take_a_run_of_other_lengths_for_a_planned_cell(data, tmp_path):
    run = asked(data)
    fixed = dataclasses.replace(run, runtime=dataclasses.replace(run.runtime, minutes=0.0))
    keep(tmp_path / "fixed", fixed)
    with pytest.raises(ValueError, match="cell a: runtime.minutes=.* began without it"):
        cells._check_folder("a", tmp_path / "fixed", run)
    keep(tmp_path / "planned", run)
    lengths = stored.planned_keys(run)
    plan_of_run = stored.Plan(minutes=1.0, settings="", asked=lengths, chosen=lengths)
    stored.write(tmp_path / "planned", plan_of_run)
    cells._check_folder("a", tmp_path / "planned", run)
    longer = stored.with_lengths(run, {"phase1.steps": 31.0})
    with pytest.raises(ValueError, match="cell a: .* holds a run of another config .phase1.steps"):
        cells._check_folder("a", tmp_path / "planned", longer)


def test_nobody_else_chooses_while_a_run_is_measured(data, tmp_path, measured, monkeypatch):
    def measure(setup, show):
        with pytest.raises(ValueError, match="in use"):
            planned(asked(data), tmp_path / "run")
        return real(setup, show)

    real = plan.measure
    monkeypatch.setattr(plan, "measure", measure)
    planned(asked(data), tmp_path / "run")
    assert stored.read(tmp_path / "run") is not None


def test_seconds_are_those_of_many_calls():
    now, calls = [0.0], []

    def repeat(count):
        calls.append(count)
        now[0] += (10.0 if len(calls) == 1 else 0.0) + 0.25 * count

    assert seconds_of(repeat, lambda: now[0]) == (10.0, 0.25)
    assert calls == [1, 3, 8]


def test_a_tiny_run_measures_itself_and_ends_with_its_plan(data, tmp_path):
    """The only test that measures: the real parts of a run, compiled once for both uses."""
    run = asked(data, runtime__minutes=30.0, phase1__steps=6, phase2__steps=6, judge__epochs=2.0)
    trained = flcl.train(run, tmp_path / "run")
    kept = stored.read(tmp_path / "run")
    assert kept.chosen == kept.asked, "everything fits into half an hour"
    assert {"phase1_step", "phase2_step", "chunk", "judge", "judged"} <= set(kept.seconds)
    assert trained.results.complete and tuple(trained.results.steps_per_task) == (6, 6, 6)
    assert bridge.value(trained.settings, "runtime.minutes") == 30.0
