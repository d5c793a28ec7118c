"""Rows that took long to make, stored one by one, so a stopped command continues."""

import hashlib
import json
from pathlib import Path

from flcl import files
from flcl.runs.opened.run import Run
from flcl.settings import formats


class KeptRows:
    """Rows by key in a JSON file; those of another state of the run are not read."""

    def __init__(self, path: Path, run: Run):
        self._path, self._run = path, _identity(run)
        self._rows: dict[str, dict] = {}
        try:
            stored = files.read_json(path)
        except ValueError:  # damaged: the rows are made again
            stored = None
        if isinstance(stored, dict) and stored.get("run") == self._run:
            self._rows = stored["rows"]

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> dict:
        return self._rows[key]

    def put(self, key: str, row: dict) -> None:
        """Stores a row; the file is always whole."""
        self._rows[key] = row
        files.write_json(self._path, {"run": self._run, "rows": self._rows})


def _identity(run: Run) -> str:
    """A digest of all that decides the rows of a run: its settings, tasks and removed classes."""
    settings = formats.identity(formats.stored_keys(run.workdir))
    state = [settings, run.stream.fingerprint, list(run.learned), sorted(run.removed.ids)]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()
