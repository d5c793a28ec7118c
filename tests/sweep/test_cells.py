"""The cells of a sweep: rows, seeds, orders and values of keys, checked before anything runs."""

import json

import pytest

from flcl import cli, programs
from flcl.settings import bridge, formats
from flcl.sweep import cells, cluster
from flcl.sweep.rows import row


@pytest.fixture
def sweep(monkeypatch, capsys):
    """Runs `flcl sweep WORDS`; returns its two texts, and fails at another exit code."""

    def run(*words, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr("sys.argv", ["flcl", *map(str, words)])
        assert programs.run("sweep") == code
        return capsys.readouterr()

    return run


def planned(tmp_path, rows=("default",), spec="fmlora_digits", **plan) -> list[cells.Cell]:
    options = {"grid": {}, "orders": (), "seeds": (), **plan}
    found = [row(spec, name) for name in rows]
    return cells.make(cells.Plan(found, **options), tmp_path, cli.settings_of)


def test_every_combination_is_a_cell(tmp_path):
    made = planned(
        tmp_path,
        rows=("default", "linear_probe"),
        grid={"train.epochs": ["1", "2.5"]},
        orders=["natural", "seed:1993"],
        seeds=["0", "7"],
    )
    assert [cell.number for cell in made] == list(range(1, 17))
    assert len({cell.workdir for cell in made}) == 16
    cell = made[-1 - 8]  # the last of the first row
    assert cell.name == "default-train.epochs=2.5-seed-1993-s7"
    assert (cell.run.train.epochs, cell.run.seed) == (2.5, 7)
    assert cell.run.stream.class_order == "seed:1993"
    # The command makes the same settings.
    spec, workdir, *words = cell.words
    assert workdir == f"--workdir={tmp_path / cell.name}"
    assert cli.settings_of(spec.removeprefix("--config="), words) == cell.run


def test_pairs_of_seeds_and_orders(tmp_path):
    options = {"orders": ["natural", "seed:1"], "seeds": ["0", "1"], "paired": True}
    names = [cell.name for cell in planned(tmp_path, **options)]
    assert names == ["default-natural-s0", "default-seed-1-s1"]
    with pytest.raises(ValueError, match="--seeds has 1 values and --orders 2"):
        planned(tmp_path, **options | {"seeds": ["0"]})


def test_other_minutes_are_another_cell(tmp_path):
    made = planned(tmp_path, rows=("default", "minutes=5", "minutes=10"))
    assert [cell.run.runtime.minutes for cell in made] == [0, 5, 10]


@pytest.mark.parametrize("order", ["0", "0,1,1", "foo"])
def test_an_order_of_classes_is_a_list_without_repetitions(order, tmp_path):
    with pytest.raises(ValueError, match="a list needs quotes of its own"):
        planned(tmp_path, orders=[order])


def test_no_row_is_not_every_row(sweep, tmp_path):
    for words in ((), ("--dry_run",), ("--slurm",)):
        argv = ["--config=fmlora_digits", f"--out={tmp_path}", "--methods=", *words]
        assert "--methods is empty" in sweep(*argv, code=2)[1]


@pytest.mark.parametrize(
    ("name", "spec", "words"),
    [
        ("default", "funlora_digits", ()),
        ("joint", "funlora_digits:baseline=joint", ()),
        ("generative_replay", "funlora_digits:baseline=generative_replay", ()),
        ("family=shift", "funlora_digits:family=shift", ()),
        ("joint+family=shift", "funlora_digits:baseline=joint,family=shift", ()),
        ("smoke+finetune", "funlora_digits:smoke,baseline=finetune", ()),
    ],
)
def test_a_row_is_a_word_of_the_config_or_a_baseline(name, spec, words):
    assert row("funlora_digits", name) == (name, spec, words)


def test_a_row_of_a_config_without_words_is_a_method(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from flcl.settings.bridge import defaults\n"
        "def get_config():\n    return defaults('fmlora')\n"
    )
    assert row(str(file), "frozen") == ("frozen", str(file), ("--config.method=frozen",))
    with pytest.raises(ValueError, match="--methods='other': .* takes no argument, 'other' was"):
        row(str(file), "other")
    assert row("fmlora_digits:smoke", "no_dmp").spec == "fmlora_digits:smoke,no_dmp"


def test_domains_and_two_runs_have_their_own_keys(tmp_path):
    order = "photo,art_painting,cartoon,sketch"
    (cell,) = planned(tmp_path, spec="fmlora_pacs", orders=[order], seeds=["3"])
    assert cell.name == "default-photo_art_painting_cartoon_sketch-s3"
    assert f"--config.stream.domain_order={order}" in cell.words
    (cell,) = planned(tmp_path, spec="combined_digits", orders=["seed:1"], seeds=["3"])
    for part in (cell.run.generator, cell.run.classifier):
        assert (part.seed, part.stream.class_order) == (3, "seed:1")
    assert [place.name for place, _ in cell.places()] == ["generator", "classifier"]
    assert cell.state() == "new"


def test_names_are_readable_and_never_alike():
    assert cells._slug("seed:1993") == "seed-1993"
    assert cells._slug("3,1,0,2") == "3_1_0_2"
    alike = ["/data/a b", "/data/a-b", "/data/a/b", "x" * 99, "x" * 98]
    slugs = [cells._slug(text) for text in alike]
    assert len(set(slugs)) == len(alike)
    assert all(len(slug) <= 60 and set(slug) <= set(slug.replace("/", "")) for slug in slugs)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out=x"], "--config is missing"),
        (["--config=fmlora_digits"], "--out is missing, such as --out=runs/NAME"),
        (["--methods=frozn"], "--methods='frozn': config argument 'frozn': accepted"),
        (["--methods=frozen,frozen"], "two cells have the name 'frozen-natural-s0'"),
        (
            ["--methods=default,fmlora"],
            "'default-natural-s0' and 'fmlora-natural-s0' have the same",
        ),
        (["--seeds=x"], "cell default: --config.seed=x: int is needed"),
        (["--orders=sed:1"], "stream.class_order='sed:1': accepted are natural, seed:N"),
        (["--grid", "train.lr=1"], "cell default-train.lr=1: config key 'train.lr' is read by no"),
        (["--grid", "train.epochs=-1"], "cell default-train.epochs=-1: train.epochs=-1.0: must be"),
        (["--grid", "train.epochs"], "--grid='train.epochs': KEY=VALUE,VALUE is needed"),
        (["--grid", "seed=1,2"], "seed: it is varied by --seeds"),
        (["--seeds=1", "--config.seed=2"], "seed: it is varied by --seeds"),
        (["--grid", "train.epochs=1", "--config.train.epochs=2"], "given with --grid and with"),
        (["--only=5"], "--only='5': there is no such cell; there are default-natural-s0"),
        (["--only=defalt-natural-s0"], "Did you mean 'default-natural-s0'"),
        (["--config.train.epochs", "3"], "unexpected argument '3': write --name=value"),
    ],
)
def test_every_cell_is_checked_before_the_first_one_runs(words, message, sweep, tmp_path):
    given = [] if words == ["--out=x"] else ["--config=fmlora_digits"]
    if words == ["--config=fmlora_digits"]:
        given, words = given, []
    elif words != ["--out=x"]:
        given.append(f"--out={tmp_path}")
    _, told = sweep(*given, *words, code=2)
    assert message in told and told.startswith("error: ") and told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_run_is_refused_before_anything_runs(tmp_path, sweep):
    words = ["--config=fmlora_digits", "--methods=frozen", f"--out={tmp_path}", "--dry_run"]
    (cell,) = planned(tmp_path, rows=("frozen",))
    cell.workdir.mkdir()
    stored = formats.to_store(cell.run)
    # A run stores what it found in its weights, and where and how it works may change.
    stored["model"] |= {"normalize": "half", "sha256": "0" * 64}
    stored["runtime"] |= {"threads": 9}
    (cell.workdir / "config.json").write_text(json.dumps(stored))
    assert "1  begun     frozen-natural-s0" in sweep(*words)[0]
    assert f"--workdir={cell.workdir}" in sweep(*words)[0]
    _, told = sweep(*words, "--config.heads.shrinkage=0.5", code=2)
    assert f"{cell.workdir} holds a run of another config (heads.shrinkage: 0.3 -> 0.5)" in told


def test_the_script_of_an_array_job(sweep, tmp_path):
    words = ["--config=fmlora_digits", "--seeds=0,1,2", f"--out={tmp_path}", "--slurm"]
    text, _ = sweep(*words, "--only=*-s1,3")
    assert "sbatch --array=2-3 " in text
    command = f"launch/slurm.sbatch sweep {' '.join(words[:-1])}\n"
    assert text.endswith(command)
    assert cluster.ranges([1, 2, 3, 5, 7, 8]) == "1-3,5,7-8"


def test_help_lists_the_keys_of_the_config(sweep):
    text, _ = sweep("--config=fmlora_digits", "--help")
    assert "--config.lora.rank=10" in text and "--methods=default" in text
    assert bridge.value(cli.settings_of("fmlora_digits", []), "lora.rank") == 10


def test_a_sweep_over_layers_continues_although_runs_store_what_they_found(tmp_path):
    """A run has a list of layers in the place of top:K, so the same command finds it again."""
    specs = ["top:3@runs/x", "bottom:3@runs/x", "random:3@0", "0-2"]
    options = {"spec": "funlora_digits", "grid": {"adapter.layers": specs}}
    made = planned(tmp_path, **options)
    assert len({cell.workdir for cell in made}) == 4
    for cell in made:
        values = formats.to_store(cell.run)
        cell.workdir.mkdir()
        found = "0-2" if cell is made[3] else "1,5,7"
        values["adapter"]["layers"] = found
        (cell.workdir / "config.json").write_text(json.dumps(values))
    assert [cell.state() for cell in planned(tmp_path, **options)] == ["begun"] * 4
    values["adapter"]["layers"] = "1,5,7"
    (made[3].workdir / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="adapter.layers: '1,5,7' -> '0-2'"):
        planned(tmp_path, **options)
