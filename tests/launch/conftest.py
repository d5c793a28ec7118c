"""Stand-ins for the commands of clusters: they record their words and answer what a test wrote down."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# One line of JSON per call in `calls`; the answers to a call are under the first key of
# `answers.json` that is part of its words: a list is used up down to its last entry. An entry is
# [code, text]; where there is none, the call succeeds silently.
STAND_IN = """#!PYTHON -IS
import fcntl, json, os, pathlib, sys
here = pathlib.Path(__file__).parent
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
with open(here / "calls", "a") as calls:
    fcntl.flock(calls, fcntl.LOCK_EX)
    calls.write(json.dumps(words) + "\\n")
    calls.flush()
    path = here / "answers.json"
    answers = json.loads(path.read_text())
    found = next((key for key in answers if key in " ".join(words)), None)
    code, text = 0, ""
    if found is not None:
        code, text = answers[found][0]
        if len(answers[found]) > 1:
            answers[found].pop(0)
            path.write_text(json.dumps(answers))
print(text, end="", file=sys.stderr if code else sys.stdout)
sys.exit(code)
"""


class Cluster:
    """A folder of stand-ins, in front of the PATH of what it runs."""

    def __init__(self, folder: Path, root: Path):
        self.folder, self.root = folder, root
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self.home = folder / "home"
        self.home.mkdir()
        self.answers({})
        (self.bin / "calls").touch()

    def stand_in(self, *names: str) -> None:
        """Makes commands of these names that record and answer."""
        for name in names:
            path = self.bin / name
            path.write_text(STAND_IN.replace("PYTHON", sys.executable))
            path.chmod(0o755)

    def script(self, name: str, text: str) -> Path:
        """Makes a command of this name that runs `text` in bash."""
        path = self.bin / name
        path.write_text(f"#!{shutil.which('bash')}\n{text}\n")
        path.chmod(0o755)
        return path

    def answers(self, answers: dict[str, list]) -> None:
        """What calls answer from now on: {part of the words: [[code, text], ...]}."""
        (self.bin / "answers.json").write_text(json.dumps(answers))

    def calls(self) -> list[list[str]]:
        """The words of every call so far."""
        return [json.loads(line) for line in (self.bin / "calls").read_text().splitlines()]

    def forget(self) -> None:
        """Empties the list of calls."""
        (self.bin / "calls").write_text("")

    def run(self, *words: str | Path, cwd: Path | str = "/", **env: str):
        """Runs bash with `words`; returns the finished process."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLCL_", "SLURM_", "XDG_"))}
        kept |= {"PATH": f"{self.bin}:{kept['PATH']}", "HOME": str(self.home), **env}
        kept |= {"TMPDIR": str(self.folder)}
        command = [shutil.which("bash"), *map(str, words)]
        return subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, timeout=60)


@pytest.fixture
def cluster(tmp_path, root) -> Cluster:
    """Stand-ins in a folder with a space in its name."""
    return Cluster(tmp_path / "a cluster", root)
