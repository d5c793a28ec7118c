"""The output of the evaluation of a classifier on labelled images: numbers and a picture."""

import re
from pathlib import Path

from flcl import files
from flcl.report import tables
from flcl.report.pictures import plots_classifier


def default_path(workdir: Path, results: dict) -> Path:
    """A file name that describes the test; the same test writes the same file."""
    words = [results["data"], results["head"], f"task{results['after_task']}"]
    name = "_".join(re.sub(r"[^\w.-]+", "-", word).strip("-") for word in words)
    return Path(workdir) / "evaluations" / f"{name}.json"


def write(results: dict, path: Path, title: str) -> Path:
    """Writes the JSON file and the picture of the confusion matrix; prints the tables.

    Returns the path of the picture.
    """
    files.write_json(path, results)
    picture = path.with_suffix(".png")
    plots_classifier.plot_confusion(
        results["confusion"], results["class_names"], picture, title=title
    )
    tables.print_evaluation(results)
    return picture
