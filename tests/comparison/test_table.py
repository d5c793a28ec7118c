"""A comparison of stored runs, recomputed by plain loops over their files."""

import dataclasses
import json
import statistics
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from edited import set_value

import flcl
from flcl import settings
from flcl.comparison import columns, groups, protocol, stored
from flcl.settings import formats

COLUMNS = ("lda.last_accuracy", "lda.average_incremental_accuracy", "lda.forgetting", "drift")
DIFFERENCES = ("difference.lda.last_accuracy", "error.lda.last_accuracy", "difference.drift")


def loaded(folder: Path, row: str) -> list[dict]:
    """`results.json` of the runs of a row, in the order of their seeds."""
    return [
        json.loads((next(folder.glob(f"{row}-*-s{seed}")) / "results.json").read_text())
        for seed in (0, 1, 2)
    ]


def edit(path: Path, **changes) -> None:
    """Changes entries of a JSON file; a name may have dots."""
    values = json.loads(path.read_text())
    for name, value in changes.items():
        set_value(values, name, value)
    path.write_text(json.dumps(values))


def of_lda(results: dict) -> dict:
    return results["summary"] if results["head"] == "lda" else results["heads"]["lda"]["summary"]


def drift(results: dict) -> float:
    *old, _ = zip(results["drift"]["relative"][-1], results["test_counts"], strict=True)
    return 100 * sum(v * n for v, n in old) / sum(n for _, n in old)


def test_every_number_is_that_of_a_plain_loop(digits):
    table = flcl.compare(
        digits / "*", columns=[*COLUMNS, *DIFFERENCES], reference="frozen", allow=["head"]
    )
    assert len(table.rows) == 14
    frozen = loaded(digits, "frozen")
    for name, row in (("fmlora", "default"), ("fmlora, paper", "paper"), ("ranpac", "ranpac")):
        runs = loaded(digits, row)
        expected = {
            "lda.last_accuracy": [100 * of_lda(r)["last_accuracy"] for r in runs],
            "lda.average_incremental_accuracy": [
                100 * statistics.fmean(of_lda(r)["accuracy_per_task"]) for r in runs
            ],
            "lda.forgetting": [100 * of_lda(r)["forgetting"] for r in runs],
            "drift": [drift(r) for r in runs],
            "difference.lda.last_accuracy": [
                100 * (of_lda(r)["last_accuracy"] - of_lda(f)["last_accuracy"])
                for r, f in zip(runs, frozen, strict=True)
            ],
            "difference.drift": [drift(r) - drift(f) for r, f in zip(runs, frozen, strict=True)],
        }
        for column, values in expected.items():
            cell = table.cell(name, column)
            assert cell.mean == pytest.approx(statistics.fmean(values)), (name, column)
            assert cell.sd == pytest.approx(statistics.stdev(values), abs=1e-9), (name, column)
            assert cell.n == 3
        shares = [of_lda(r)["last_accuracy"] for r in runs]
        error = statistics.fmean(100 * (p * (1 - p) / 360) ** 0.5 for p in shares)
        assert table.cell(name, "error.lda.last_accuracy").mean == pytest.approx(error)
    assert table.cell("frozen", "difference.drift") == (None, None, 0, None, None, True)
    # One evaluation of all classes is no sequence of tasks.
    assert table.cell("joint", "lda.last_accuracy").n == 3
    assert table.cell("joint", "lda.average_incremental_accuracy").mean is None


def test_rows_are_chosen_and_ordered(digits):
    table = flcl.compare(digits / "*", rows=["frozen", "fmlora"])
    assert [row.name for row in table.rows] == ["frozen", "fmlora"]
    assert repr(table) == f"<comparison of 6 runs: 2 rows, {len(table.columns)} columns>"
    names = [column.name for column in table.columns]
    heads = [f"{head}.last_accuracy" for head in ("class_mean", "ridge", "linear")]
    first = ["last_accuracy", "average_incremental_accuracy", "forgetting"]
    assert names[:3] == first and set(names[3:]) == {*heads, "drift", "seconds"}
    assert "seed and order 0 natural, 1 seed:1993, 2 seed:1" in " ".join(table.notes)
    assert "The answers are those of the head lda." in table.notes
    known = list(columns.usual([run for row in table.rows for run in row.runs]))
    assert {"bytes_per_class", "lda.last_accuracy", "training_seconds"} <= set(known)
    assert "fidelity" not in known


def test_a_path_of_a_number_is_a_column(digits):
    table = flcl.compare(
        digits / "default*", columns=["parameters.trained_parameters.-1", "bytes_per_class"]
    )
    assert table.cell("fmlora", "parameters.trained_parameters.-1")[:3] == (3050, 0.0, 3)
    assert table.cell("fmlora", "bytes_per_class").mean == 520


def test_the_head_is_part_of_the_protocol_unless_it_is_named(digits):
    both = [digits / "frozen*", digits / "ranpac*"]
    with pytest.raises(ValueError, match=r"\(head\): head is 'lda' in .*frozen.*'ridge' in .*ranp"):
        flcl.compare(both)
    table = flcl.compare(both, allow=["head"])
    assert "Mixed on purpose: head ('lda', 'ridge')." in table.notes
    named = flcl.compare(both, columns=["lda.last_accuracy", "drift"])
    assert not [note for note in named.notes if "Mixed" in note or "answers" in note]


@pytest.mark.parametrize(
    ("file", "changes", "key"),
    [
        ("config.json", {"data.train_per_class": 10}, "data.train_per_class"),
        ("config.json", {"stream.tasks": "2,2,2,4"}, "stream.tasks"),
        ("stream.json", {"test_images": [36] * 10}, "stream.json:test_images"),
    ],
)
def test_other_protocols_are_refused_with_both_sides(copied, file, changes, key):
    folder = copied("frozen-natural-s0", "default-natural-s0")
    changed = folder / "default-natural-s0"
    edit(changed / file, **changes)
    with pytest.raises(ValueError) as error:
        flcl.compare(folder / "*")
    text = str(error.value)
    assert f"different protocols ({key}): {key} is" in text and f"--allow={key}" in text
    assert str(changed) in text and str(folder / "frozen-natural-s0") in text
    table = flcl.compare(folder / "*", allow=[key.partition(":")[0]])
    assert any(note.startswith(f"Mixed on purpose: {key} (") for note in table.notes)


def test_other_images_are_refused_where_they_are_known(copied):
    """Of a run without digests nothing is known; the order of the tasks does not matter."""
    folder = copied("frozen*")
    places = [folder / f"frozen-{name}" for name in ("natural-s0", "seed-1993-s1", "seed-1-s2")]

    def images(place, *digests):
        results = json.loads((place / "results.json").read_text())
        for task, value in zip(results["diagnosis"], digests, strict=True):
            task["images"] = f"{value:064x}"
        (place / "results.json").write_text(json.dumps(results))

    images(places[0], 1, 2, 3, 4, 2**256 - 1)
    images(places[1], 2, 4, 1, 2**256 - 1, 3)
    assert flcl.compare(folder / "*").rows
    images(places[2], 2, 4, 1, 7, 3)
    with pytest.raises(
        ValueError, match=r"\(images\): images is '0{63}9' in .*natural-s0, .*--allow"
    ):
        flcl.compare(folder / "*")
    assert "Mixed on purpose: images (" in " ".join(flcl.compare(places, allow=["images"]).notes)


def test_unfinished_runs_are_named(copied):
    folder = copied("frozen*", "default*")
    edit(folder / "default-natural-s0" / "results.json", complete=False)
    (folder / "default-seed-1-s2" / "results.json").unlink()
    with pytest.raises(ValueError, match="2 of 6 runs are not finished: .*default-natural-s0, .*"):
        flcl.compare(folder / "*")
    table = flcl.compare(folder / "*", allow=["unfinished"], reference="frozen")
    assert table.cell("fmlora", "last_accuracy").n == 1
    assert table.cell("fmlora", "difference.last_accuracy")[1:] == (None, 1, None, None, False)
    assert table.notes[-1].startswith("Left out, because they are not finished: ")


def test_pairs_have_the_same_seed_and_order(copied):
    """The mean is taken over all runs of a row, a difference over the pairs that both have."""
    folder = copied("frozen*", "sd_lora*")
    gone = next(folder.glob("frozen-*-s1"))
    for file in gone.iterdir():
        file.unlink()
    table = flcl.compare(folder / "*", reference="frozen")
    assert table.cell("sd_lora", "last_accuracy").n == 3
    difference = table.cell("sd_lora", "difference.last_accuracy")
    pairs = [
        100 * (of_lda(a)["last_accuracy"] - of_lda(b)["last_accuracy"])
        for a, b in [
            [json.loads((next(folder.glob(f"{row}-*-s{seed}")) / "results.json").read_text())
             for row in ("sd_lora", "frozen")]
            for seed in (0, 2)
        ]
    ]  # fmt: skip
    assert difference.mean == pytest.approx(statistics.fmean(pairs))
    assert difference.n == 2 and not difference.shown


def test_files_that_were_changed_or_lead_elsewhere_are_refused(copied, tmp_path):
    folder = copied("frozen*")
    run = folder / "frozen-natural-s0"
    (run / "digests.json").write_text(json.dumps({"results.json": ["0" * 64]}))
    with pytest.raises(ValueError, match=r"results\.json has changed since the run wrote it"):
        flcl.compare(run)
    (run / "digests.json").unlink()
    (run / "results.json").rename(tmp_path / "elsewhere.json")
    (run / "results.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ValueError, match="symbolic link that leads out of the workdir"):
        flcl.compare(run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["lda.last"]}, r"no run has this number\. Did you mean 'lda.last_accuracy'"),
        ({"columns": ["fid"]}, "no run has this number"),
        ({"columns": ["error.drift"]}, "gives the error of a last accuracy only"),
        ({"columns": ["difference.drift"]}, "a reference is needed"),
        ({"columns": ["error.summary.last_accuracy"]}, "gives the error of a last accuracy only"),
        ({"columns": ["error.error.last_accuracy"]}, "before the name of a number, once"),
        ({"columns": ["difference.error.last_accuracy"]}, "before the name of a number, once"),
        ({"columns": "lda.last"}, r"columns='lda.last': no run has this number"),
        ({"rows": "fm-lora"}, "rows='fm-lora': there is no such row"),
        ({"allow": ["heads"]}, "allow='heads': accepted are unfinished.* Did you mean 'head'"),
        ({"reference": "frosen"}, "there is no such row. Did you mean 'frozen'"),
        ({"rows": ["fm-lora"]}, "rows='fm-lora': there is no such row"),
        ({"rows": ["fmlora"], "reference": "frozen"}, "it is none of --rows"),
    ],
)
def test_names_that_do_not_exist(digits, options, message):
    with pytest.raises(ValueError, match=message):
        flcl.compare([digits / "frozen*", digits / "default*"], **options)


def test_paths_that_hold_no_run(digits, tmp_path):
    with pytest.raises(ValueError, match="no run is named"):
        flcl.compare([])
    for path in (tmp_path, tmp_path / "none", tmp_path / "*"):
        with pytest.raises(ValueError, match="holds no run"):
            flcl.compare(path)
    (tmp_path / "frozen").symlink_to(digits / "frozen-natural-s0")
    with pytest.raises(ValueError, match="hold the same run: name only one of them"):
        flcl.compare([digits / "frozen*", tmp_path / "frozen"])


def test_a_group_is_named_by_what_tells_it_from_others(digits):
    run = stored.read(digits / "default-natural-s0")

    def changed(name, **keys):
        config = formats.read(digits / "default-natural-s0") | {"name": name}
        for key, value in keys.items():
            section, leaf = key.split("__")
            config[section] = {**config[section], leaf: value}
        return run._replace(settings=formats.bridge.from_dict(config))

    same = [changed("digits: a", lora__rank=4), changed("digits: a", lora__rank=8)]
    weights = changed("digits: b", model__weights="/some/where/b.npz")
    names = [group.name for group in groups.make([*same, weights])]
    assert names == ["a, lora.rank=4", "a, lora.rank=8", "b"]
    # The generator that is the memory is another one for each seed.
    memory = [
        changed("digits: a", memory__generator=f"runs/{i}", memory__sha256=str(i) * 64)
        for i in range(2)
    ]
    memory[1] = memory[1]._replace(
        settings=dataclasses.replace(memory[1].settings, seed=memory[1].settings.seed + 1)
    )
    (group,) = groups.make(memory)
    assert len(group.runs) == 2
    assert next(iter(groups.make([*memory, run]))).name == "a"


@pytest.fixture
def frozen_generator(root, tmp_path) -> Path:
    """A small run of FunLoRA that counts as complete."""
    with tarfile.open(root / "tests/runs/frozen/format_6/funlora.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    workdir = tmp_path / "funlora"
    (workdir / "digests.json").unlink()
    edit(workdir / "results.json", complete=True)
    return workdir


def test_a_generator_has_columns_of_its_own(frozen_generator):
    workdir = frozen_generator
    table = flcl.compare(workdir)
    results = json.loads((workdir / "results.json").read_text())
    (row,) = table.rows
    cells = {c.name: cell for c, cell in zip(table.columns, row.cells, strict=True)}
    per_class = results["fidelity"]["per_class"].values()
    known = [value for value in per_class if value is not None]
    assert cells["fidelity"].mean == pytest.approx(100 * sum(known) / len(known))
    assert cells["bytes_per_class"].mean == 4 * results["parameters"]["parameters_per_class"]
    assert cells["last_accuracy"][:3] == (
        pytest.approx(100 * results["summary"]["last_accuracy"]), None, 1,
    )  # fmt: skip
    quality = results["quality"]["all"]
    factors = {"fd": 1, "kd": 1, "precision": 100, "density": 100, "coverage": 100, "copies": 100}
    named = flcl.compare(workdir, columns=[*factors, "parameters_per_class"])
    for name, factor in factors.items():
        assert named.cell("frozen", name).mean == pytest.approx(factor * quality[name])
    assert named.cell("frozen", "parameters_per_class").mean == cells["bytes_per_class"].mean / 4


def test_methods_without_guidance_stand_beside_funlora_without_it(frozen_generator):
    """FunLoRA has the key `sample.guidance`, other generators have not; 1 is off."""
    run = stored.read(frozen_generator)
    same = {name: getattr(run.settings, name) for name in ("data", "stream", "judge")}
    kept = dataclasses.asdict(run.settings.sample)
    plain = settings.Sample(**{name: kept[name] for name in kept if name != "guidance"})
    other = settings.RUNS["finetune"](method="finetune", sample=plain, **same)
    beside = run._replace(settings=other)
    assert not protocol.check([run, beside], False, [])
    guided = dataclasses.replace(run.settings.sample, guidance=2.0)
    run = run._replace(settings=dataclasses.replace(run.settings, sample=guided))
    with pytest.raises(
        ValueError, match=r"\(sample.guidance\): sample.guidance is 2.0 in .*1.0 in"
    ):
        protocol.check([run, beside], False, [])


def test_a_comparison_needs_no_jax(digits, root):
    code = (
        "import sys, flcl; table = flcl.compare(sys.argv[1], reference='frozen', allow=['head']);"
        "from flcl.comparison import terminal; terminal.show(table);"
        "assert not {'jax', 'matplotlib'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(digits / "*")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fmlora, paper" in done.stdout


def test_names_are_the_same_whatever_the_order_of_the_keys():
    keys = [{"method": "m", "b": n, "a": n, "c": 0} for n in (1, 2)]
    wanted = ["t, a=1, b=1", "t, a=2, b=2"]
    for order in (keys, [dict(reversed(each.items())) for each in keys]):
        assert groups._names(order, ["t", "t"]) == wanted
