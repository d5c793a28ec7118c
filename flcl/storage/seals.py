"""Digests of the files that a run writes and reads again, so that another file is noticed.

A file can be good in itself and still not be the one that the run wrote: a copy from another run,
or one in which a digit has changed. `digests.json` has the SHA-256 of each. Without it, or in a run
of an older version, nothing is known of a file, and its reader compares what it can.
"""

import hashlib
from pathlib import Path

from flcl import files

NAME = "digests.json"


def digest(content: bytes) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class Seals:
    """The digests of one workdir. Names are paths inside it, with `/`.

    workdir: folder of the run. writes: False (in all processes but the first) = nothing is written.
    """

    def __init__(self, workdir: str | Path, *, writes: bool = True):
        self.workdir = Path(workdir)
        self._writes = writes

    def note(self, name: str, value: str) -> None:
        """Stores the digest of a file that is about to be written."""
        known = self._known()
        before = known.get(name, [])
        if not self._writes or value in before[:1]:
            return
        # The one before stays good: a process may be killed before the new file has its name.
        known[name] = [value, *before[:1]]
        files.write_json(self.workdir / NAME, known)

    def forget_earlier(self, name: str) -> None:
        """From now on only the newest file under this name is the one that the run wrote."""
        known = self._known()
        if self._writes and len(known.get(name, [])) > 1:
            known[name] = known[name][:1]
            files.write_json(self.workdir / NAME, known)

    def write(self, name: str, content: bytes) -> Path:
        """Writes a file completely or not at all, after its digest; returns its path."""
        path = self.workdir / name
        if not self._writes:
            return path
        self.note(name, digest(content))
        return files.write(path, content)

    def holds(self, name: str, value: str) -> bool | None:
        """Whether `value` is the digest of what the run wrote; None if nothing is known."""
        known = self._known().get(name)
        return None if known is None else value in known

    def newest(self, name: str, value: str) -> bool:
        """Whether `value` is the digest of what the run wrote last under this name."""
        return value in self._known().get(name, [])[:1]

    def _known(self) -> dict[str, list[str]]:
        try:
            stored = files.read_json(self.workdir / NAME)
        except ValueError:  # damaged: then nothing is known, as in a run of an older version
            return {}
        entries = stored.items() if isinstance(stored, dict) else ()
        return {
            name: values
            for name, values in entries
            if isinstance(values, list) and all(isinstance(value, str) for value in values)
        }
