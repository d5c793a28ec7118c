"""The features of test images at the end of their task, from which the drift is measured."""

from pathlib import Path

import numpy as np

from flcl import files
from flcl.storage import npz
from flcl.storage.seals import Seals, digest

_KINDS = {"features": npz.Kind("f", 2)}


class References:
    """The files `features/group_01.npz`, ... of a run, with their digests."""

    def __init__(self, seals: Seals):
        self._seals = seals

    def path(self, group: int) -> Path:
        """The file of a group."""
        return self._seals.workdir / _name(group)

    def keep(self, group: int, features: np.ndarray) -> None:
        """Stores the features [N, d] of a group."""
        self._seals.write(_name(group), npz.to_bytes({"features": features}, compressed=False))

    def drop(self, group: int) -> None:
        """Deletes the file of a group that is not tested any more."""
        self.path(group).unlink(missing_ok=True)

    def state(self, group: int) -> tuple[str, str]:
        """The state of a file, and a line that says what is wrong with it.

        The state is "good", "bad" (missing, damaged or replaced), or "unknown": readable, in a run
        that did not store digests.
        """
        path = self.path(group)
        try:
            content = files.read_bytes(path)
            known = self._seals.holds(_name(group), digest(content))
            if known is None:
                npz.from_bytes(content, path, _KINDS)
                return "unknown", ""
        except FileNotFoundError:
            return "bad", f"{path} is missing"
        except ValueError as error:
            return "bad", str(error)
        return ("good", "") if known else ("bad", f"{path} has changed since the run wrote it")

    def trust(self, group: int) -> None:
        """Stores the digest of a file that was compared and is good."""
        content = files.read_bytes(self.path(group))
        self._seals.note(_name(group), digest(content))

    def read(self, group: int) -> np.ndarray:
        """The features [N, d] of a group. Raises `ValueError` for another file in its place."""
        path = self.path(group)
        content = files.read_bytes(path)
        if self._seals.holds(_name(group), digest(content)) is False:
            raise ValueError(
                f"{path} has changed since the run wrote it: run the same command again, which "
                "makes it again"
            )
        return npz.from_bytes(content, path, _KINDS)["features"]


def _name(group: int) -> str:
    return f"features/group_{group:02d}.npz"
