import base64
import io
import json
import re
import shlex
from html.parser import HTMLParser

import numpy as np
import pytest
from absl import flags
from PIL import Image

from flcl import cli
from flcl.metrics.matrix import summary
from flcl.report import answers
from flcl.report.page import write_page
from flcl.report.pictures import plots
from flcl.settings import bridge


class Reader(HTMLParser):
    """Rows of all tables, pictures, and everything that would be loaded from elsewhere."""

    def __init__(self, text: str):
        super().__init__()
        self.rows, self.images, self.loads, self.open = [], [], [], []
        self.commands = []
        self.feed(text)
        assert not self.open, f"tags left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "img":
            self.images.append((values["alt"], values["src"]))
        addresses = [values[name] for name in ("src", "href") if name in values]
        self.loads += [address for address in addresses if not address.startswith("data:")]
        self.loads += [tag] if tag in ("script", "link", "iframe") else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if self.open and self.open[-1] == "pre":
            self.commands.append(data)


def define_workdir(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)


@pytest.fixture
def workdir(tmp_path, results):
    (tmp_path / "results.json").write_text(json.dumps(results))
    lines = [
        {"task": 1, "step": step, "phase": "phase1", "loss": 1 / step, "time": 0.0}
        for step in range(1, 30)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    timing = {"device": "cpu", "devices": 2, "tasks": {"1": {"training_seconds": 12.5}}}
    (tmp_path / "timing.json").write_text(json.dumps(timing))
    images = np.random.default_rng(0).integers(0, 255, (2, 3, 8, 8, 1), dtype=np.uint8)
    plots.plot_samples(images, ["a", "b"], tmp_path / "samples" / "task_01.png")
    return tmp_path


def test_page_holds_numbers_facts_and_pictures_in_one_file(workdir, results):
    path = write_page(workdir)
    assert path == workdir / "report.html"
    page = Reader(path.read_text())
    assert page.loads == []
    rows = {row[0]: row[1:] for row in page.rows if row}
    assert rows["2"] == ["80.0", "70.0", "", "73.3"]
    assert rows["3"] == ["75.0", "65.0", "60.0", "64.2"]
    assert rows["ceiling"] == ["99.0", "98.0", "97.0", "97.7"]
    assert rows["fidelity of the samples"] == ["50.0", "25.0", "100.0", "50.0"]
    assert rows["recall of the samples"] == ["40.0", "", "50.0", "45.0"]
    assert rows["KD"] == ["", "", "-0.5", "0.0123"]
    assert rows["class order (ids in the data set)"] == ["3, 1, 0, 2, 5, 4"]
    assert rows["scenario"] == ["cil"] and rows["seed"] == ["7"]
    assert rows["solver"] == ["heun, 25 steps"]
    assert rows["function evaluations per image"] == ["50"]
    assert rows["generated images per class"] == ["480 to 500"]
    assert rows["oversampling"] == ["5 x"]
    assert rows["trunk parameters"] == ["35,746,307"]
    assert rows["adapted convolutions"] == ["2"]
    assert rows["bytes per task"] == ["143,000,000, 80,224, 80,224"]
    assert rows["training seconds per task"] == ["12.5"] and rows["device"] == ["2 x cpu"]
    names = [alt for alt, _ in page.images]
    assert names == ["Accuracy after every task", "Training loss", "task 01"]
    embedded = base64.b64decode(page.images[2][1].partition(",")[2])
    assert embedded == (workdir / "samples" / "task_01.png").read_bytes()
    assert sorted(p.name for p in (workdir / "plots").iterdir()) == [
        "accuracy.png",
        "loss.png",
        "matrix.png",
    ]


def test_names_from_the_data_are_escaped(workdir):
    text = write_page(workdir).read_text()
    assert "<b>fox" not in text and "&lt;b&gt;fox" in text and "hen &amp; co" in text


def test_headline_numbers(workdir):
    tiles = re.findall(r"<b>([-\d.]+)</b><span>([^<]+)</span>", write_page(workdir).read_text())
    assert tiles == [
        ("64.2", "last accuracy"),
        ("75.8", "average incremental accuracy"),
        ("10.0", "forgetting"),
        ("-10.0", "backward transfer"),
        ("97.7", "ceiling"),
        ("50.0", "fidelity"),
        ("45.0", "recall"),
    ]


def test_unfinished_and_sparse_results_still_give_a_page(workdir, results):
    left_out = ("ceiling", "fidelity", "quality", "sampling")
    few = {k: v for k, v in results.items() if k not in left_out}
    first = results["matrix"][:1]
    few |= {"complete": False, "matrix": first, "summary": summary(first, [10, 20, 30])}
    del few["parameters"], few["versions"]
    (workdir / "results.json").write_text(json.dumps(few))
    for name in ("metrics.jsonl", "timing.json", "samples/task_01.png"):
        (workdir / name).unlink()
    page = Reader(write_page(workdir).read_text())
    assert [alt for alt, _ in page.images] == ["Accuracy after every task"]
    assert "not complete: 1 of 3 tasks evaluated" in (workdir / "report.html").read_text()


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(ValueError, match="has no results.json"):
        write_page(tmp_path)


def test_page_of_a_classifier(tmp_path, classified):
    (tmp_path / "results.json").write_text(json.dumps(classified))
    text = write_page(tmp_path).read_text()
    page = Reader(text)
    rows = {row[0]: row[1:] for row in reversed(page.rows) if row}
    assert rows["after task"] == ["photo", "art_painting", "$sketch$", "all"]
    assert rows["3"] == ["75.0", "65.0", "60.0", "64.2"]
    assert rows["class mean"] == ["65.0", "55.0", "70.0", "64.2"]
    assert rows["lda"] == ["85.0", "75.0", "80.0", "79.2"] and "linear" not in rows
    assert "The answers are those of the head linear, which was trained task by task." in text
    assert rows["statistics"] == ["3.0 kB a class, 2.4 MB once"]
    assert rows["features moved"] == ["25.0", "37.5", "0.0", ""]
    assert "Features moved: share of their length, in %; turned: 1 - cosine, in %, since" in text
    sentence = "The features of the test images of the domain {} have moved by {} % of their length"
    moved = [sentence.format("art_painting", 38), sentence.format("photo", 25)]
    assert re.findall(r"The features [^<]*length", text) == moved
    assert rows["domains"] == ["3 with 2 classes each"]
    assert rows["weights"] == ["vit.safetensors"] and rows["layout of the weights"] == ["dinov2"]
    assert rows["SHA-256 of the weights"] == ["ab12"]
    assert rows["normalisation of the input"] == ["imagenet"]
    assert rows["weights that were not used"] == ["head.weight, head.bias"]
    assert rows["sites"] == ["q, v"]
    assert rows["trained parameters"] == ["190,000, 5,000, 5,000"]
    assert rows["steps per task"] == ["4, 2, 2"] and rows["head of the accuracies"] == ["linear"]
    assert "Accuracy on test images" in text and "fidelity" not in rows
    names = [alt for alt, _ in page.images]
    assert names == ["Accuracy after every task", "Drift of the features", "Rank of every task"]
    tiles = re.findall(r"<b>([-\d.]+)</b><span>([^<]+)</span>", text)
    assert tiles[4:] == [("64.2", "class mean"), ("79.2", "lda")]


def test_page_of_an_older_classifier(tmp_path, older):
    (tmp_path / "results.json").write_text(json.dumps(older))
    rows = {row[0]: row[1:] for row in Reader(write_page(tmp_path).read_text()).rows if row}
    last = older["class_mean"]["matrix"][-1] + [older["class_mean"]["summary"]["last_accuracy"]]
    assert rows["class mean"] == [f"{100 * value:.1f}" for value in last]
    assert rows["head of the accuracies"] == ["linear"] and "statistics" not in rows


def test_a_classifier_without_drift_or_choice_has_no_such_picture(tmp_path, classified):
    for entry in classified["rank_selection"]:
        entry["probabilities"] = None
    still = {"relative": [[0.0, None, None]], "cosine": [[0.0, None, None]]}
    classified |= {"drift": still, "heads": {}}
    (tmp_path / "results.json").write_text(json.dumps(classified))
    page = Reader(write_page(tmp_path).read_text())
    assert [alt for alt, _ in page.images] == ["Accuracy after every task"]


def test_answers_of_a_classifier_are_shown(tmp_path, classified):
    (tmp_path / "results.json").write_text(json.dumps(classified))
    images = np.stack([np.full((4, 4, 3), shade, np.uint8) for shade in (10, 200)])
    confusion = np.array([[5, 3], [1, 4]])
    kept = answers.KeptAnswers(3, confusion, images, np.array([0, 1]), np.array([1, 0]))
    answers.keep(tmp_path, kept)
    text = write_page(tmp_path).read_text()
    page = Reader(text)
    assert "wrong answers after task 3" in text and page.loads == []
    captions = re.findall(r"<b>(\w+)</b>, called <b>(\w+)</b>([^<]*)<", text)
    assert captions == [("dog", "elephant", " (3 images)"), ("elephant", "dog", "")]
    shown = [(alt, picture(data)) for alt, data in page.images if alt.startswith("a test image")]
    assert [alt for alt, _ in shown] == ["a test image of dog", "a test image of elephant"]
    for (_, pixels), image in zip(shown, images, strict=True):
        np.testing.assert_array_equal(pixels, image)
    assert "Answers after task 3, linear head" in [alt for alt, _ in page.images]
    assert (tmp_path / "plots" / "confusion.png").exists()


def picture(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_the_page_says_how_to_make_the_run_again(workdir):
    config = bridge.defaults("funlora")
    config.data.source, config.data.channels, config.stream.tasks = "npz:my images.npz", 3, "2,2,2"
    config.model.attention = ()
    run = bridge.as_dict(bridge.freeze(config))
    (workdir / "config.json").write_text(json.dumps(run))
    page = Reader(write_page(workdir).read_text())
    rows = {row[0]: row[1:] for row in page.rows if row}
    assert rows["data source"] == ["npz:my images.npz"]
    assert rows["image size"] == ["8 x 8 pixels, RGB"]
    assert rows["data.source"] == ["npz:my images.npz", "digits"]
    assert rows["model.attention"] == ["()", "16"]
    assert "seed" in rows and "data.image_size" not in rows  # the latter has its default
    (text,) = page.commands
    arguments = cli.parse(shlex.split(text)[1:], define_workdir, config=True)
    assert arguments.run == bridge.from_dict(run) and arguments.flags.workdir == "runs/again"


def test_accuracy_above_the_ceiling_is_explained(workdir, results):
    assert "above the ceiling" not in write_page(workdir).read_text()
    results["ceiling"] = [0.7, 0.66, 0.55]
    (workdir / "results.json").write_text(json.dumps(results))
    text = write_page(workdir).read_text()
    assert "above the ceiling (task 1, task 3; by at most 5.0 points)" in text


def test_results_that_do_not_follow_the_schema_are_refused(workdir, results):
    results["test_counts"][1] = "many"
    (workdir / "results.json").write_text(json.dumps(results))
    wanted = r"results.json: test_counts\[1\] is a string, an integer is needed"
    with pytest.raises(ValueError, match=wanted):
        write_page(workdir)


def test_the_first_column_stays_in_view_on_a_telephone(workdir):
    """Both rules are needed: the table scrolls in its box, and the names do not scroll away."""
    text = write_page(workdir).read_text()
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto", text)
    assert re.search(r"\.matrix th:first-child \{[^}]*position: sticky; left: 0", text)
    assert '<div class="scroll"><table class="matrix">' in text


def test_tasks_are_headed_by_their_classes_where_these_are_short(tmp_path, results):
    def headings(names):
        (tmp_path / "results.json").write_text(json.dumps({**results, "task_names": names}))
        rows = Reader(write_page(tmp_path).read_text()).rows
        return next(row[1:-1] for row in rows if row[:1] == ["after task"])

    assert headings(["cat, dog", "hen, fox", "cow, pig"]) == ["cat, dog", "hen, fox", "cow, pig"]
    assert headings(["cat, dog", "hen, fox", "rhinoceros, ox"])[2] == "rhinoceros, ox"
    assert headings(["cat, dog", "hen, fox", "hippopotamus, ox"]) == ["task 1", "task 2", "task 3"]
