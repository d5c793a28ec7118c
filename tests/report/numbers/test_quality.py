"""The numbers of samples beside real images as text; fidelity never stands alone."""

import pytest

from flcl.report import tables
from flcl.report.numbers import quality
from flcl.report.page import write_page
from flcl.runs.results import from_json


def test_rows_have_a_cell_for_each_group_and_leave_out_what_nobody_measured(results):
    del results["quality"]["all"]["density"]
    rows = {row.name: row for row in quality.rows(from_json(results))}
    names = ["precision", "recall", "coverage", "copies", "copies, test images"]
    assert list(rows) == ["KD", "KD, ± error", "FD", *names]
    assert rows["KD"].all == "0.0123" and rows["KD, ± error"].all == "0.0021"
    assert rows["FD"].cells == ("5.5", "", "4") and rows["FD"].all == "3.25"
    assert rows["recall"].cells == ("40.0", "", "50.0") and rows["recall"].all == "45.0"
    assert rows["copies"].all == "30.0" and rows["copies, test images"].all == "35.0"
    assert all(len(row.cells) == 3 for row in rows.values())
    (said, biased) = quality.notes(from_json(results))
    assert said.startswith("Features: judge. 80 samples and 60 real test images; 50 of each")
    assert "fewer than 5,000 images" in biased and "KD" in biased


def test_many_images_show_the_frechet_distance_first_and_a_file_its_hash(results):
    results["quality"]["all"] |= {"generated": 5_000, "real": 5_000}
    results["quality"] |= {"features": "inception:fid.pth", "sha256": "ab12"}
    many = from_json(results)
    assert [row.name for row in quality.rows(many)][:2] == ["FD", "KD"]
    assert quality.line(many) == "FD 3.25, KD 0.0123 ± 0.0021"
    (said,) = quality.notes(many)
    assert said.startswith("Features: inception:fid.pth (SHA-256 ab12).")


@pytest.mark.parametrize("metrics", ["none", "kd"])
def test_fidelity_without_diversity_says_so_in_the_table_and_on_the_page(
    results, tmp_path, metrics
):
    del results["quality"]["all"]["recall"]
    for group in results["quality"]["per_task"]:
        (group or {}).pop("recall", None)
    if metrics == "none":
        del results["quality"]
    for text in (
        tables.as_text(from_json(results)),
        write_page(tmp_path, from_json(results)).read_text(),
    ):
        assert "fidelity" in text and "diversity of the samples was not measured" in text
        assert ("not measured" in text.split("diversity")[0]) == (metrics == "none")


def test_many_tasks_are_split_to_fit(results):
    for width in (60, 90):
        text = tables.as_text(from_json(results), width)
        assert max(map(len, text.splitlines())) <= width and "…" not in text


def test_the_second_line_of_a_heading_is_a_line(results):
    """It has the classes of a task if their names are short."""
    results["class_names"] = [f"c{number}" for number in range(len(results["class_names"]))]
    text = tables.as_text(from_json(results), 200)
    assert "\\n" not in text
    assert sum(" c0" in line for line in text.splitlines()) == 2  # also in the accuracy matrix
