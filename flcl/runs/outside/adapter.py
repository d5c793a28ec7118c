"""Writes the adapter of a classifier for other libraries: see `flcl.models.pretrained.peft`."""

import re
from pathlib import Path

from flcl import files
from flcl.models.pretrained import peft
from flcl.runs import results
from flcl.runs.opened.run import Run
from flcl.storage import paths


def export_adapter(
    run: Run, out: str | Path, model: str | None, prefix: str, overwrite: bool
) -> Path:
    """Writes a PEFT folder; see `ClassifierOnDisk.export_adapter`."""
    out, weights = paths.local(out, "out"), run.settings.model.weights
    if not re.fullmatch(r"([A-Za-z_]\w*\.)*", prefix, re.ASCII):
        raise ValueError(f"prefix={prefix!r}: names with a dot after each are needed, such as vit.")
    adapters = run._setup.method.low_rank(run._memory(run.learned[-1]))
    named = peft.model_of(_layout(run), model, weights)
    base = weights.removeprefix("hub:") if weights.startswith("hub:") else None
    content = peft.folder(adapters, named, prefix, base)
    for name in content:
        if (out / name).exists() and not overwrite:
            raise ValueError(
                f"{out / name}: exists already; choose another folder, or overwrite it"
            )
    # The config last: a folder without it is no adapter.
    for name, each in content.items():
        files.write(out / name, each)
    return out


def _layout(run: Run) -> str | None:
    """The layout of the weights file, as `results.json` says; None if it does not."""
    stored = files.read_json(run.workdir / results.NAME)
    weights = stored.get("weights") if isinstance(stored, dict) else None
    return weights.get("layout") if isinstance(weights, dict) else None
