"""Stand-ins for the commands of clusters: they record their words and answer as a test wrote."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

# Words of a call end with \x1f, a call with \x1e, in `calls`. A call takes its answer from the
# first folder of `answers` whose `key` is part of its words: the first of its files, which is used
# up unless it is the last. Its first line is the exit code, the rest what is printed. Where there
# is none, the call succeeds silently.
STAND_IN = """
here="${0%/*}" code=0 text=""
{ printf '%s\\x1f' "${0##*/}" "$@"; printf '\\x1e'; } >>"$here/calls"
for folder in "$here"/answers/*/; do
  [[ -e "$folder/key" && "${0##*/} $*" == *"$(<"$folder/key")"* ]] || continue
  files=("$folder"[0-9]*)
  { read -r code; IFS= read -r -d "" text; } <"${files[0]}"
  ((${#files[@]} == 1)) || rm "${files[0]}"
  break
done
((code)) && printf %s "$text" >&2 || printf %s "$text"
exit "$code"
"""


class Cluster:
    """A folder of stand-ins, in front of the PATH of what it runs."""

    def __init__(self, folder: Path, root: Path):
        self.folder, self.root = folder, root
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self.home = folder / "home"
        self.home.mkdir()
        self.forget()

    def stand_in(self, *names: str) -> None:
        """Makes commands of these names that record and answer."""
        for name in names:
            self.script(name, STAND_IN)

    def script(self, name: str, text: str) -> Path:
        """Makes a command of this name that runs `text` in bash."""
        path = self.bin / name
        path.write_text(f"#!{shutil.which('bash')}\n{text}\n")
        path.chmod(0o755)
        return path

    def answers(self, answers: dict[str, list]) -> None:
        """What calls answer from now on: {part of the words: [[code, text], ...]}."""
        shutil.rmtree(self.bin / "answers", ignore_errors=True)
        for number, (key, entries) in enumerate(answers.items()):
            folder = self.bin / "answers" / f"{number:03}"
            folder.mkdir(parents=True)
            (folder / "key").write_text(key)
            for index, (code, text) in enumerate(entries):
                (folder / f"{index:03}").write_text(f"{code}\n{text}")

    def calls(self) -> list[list[str]]:
        """The words of every call so far."""
        lines = (self.bin / "calls").read_text().split("\x1e")[:-1]
        return [line.split("\x1f")[:-1] for line in lines]

    def forget(self) -> None:
        """Empties the list of calls."""
        (self.bin / "calls").write_text("")

    def run(self, *words: str | Path, cwd: Path | str = "/", **env: str):
        """Runs bash with `words`; returns the finished process."""
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("FLCL_", "SLURM_", "XDG_"))
        }
        kept |= {"PATH": f"{self.bin}:{kept['PATH']}", "HOME": str(self.home), **env}
        kept |= {"TMPDIR": str(self.folder)}
        command = [shutil.which("bash"), *map(str, words)]
        return subprocess.run(
            command, cwd=cwd, env=kept, capture_output=True, text=True, timeout=60
        )


@pytest.fixture
def cluster(tmp_path, root) -> Cluster:
    """Stand-ins in a folder with a space in its name."""
    return Cluster(tmp_path / "a cluster", root)
