"""The console of every table, bar and line: names in it are text and nothing else."""

import rich.console
from rich.text import Text

from flcl.shown import shown


class Console(rich.console.Console):
    """A rich console for which a string is plain text.

    Control characters are shown escaped, and a class called `[red]` or `:cat:` keeps its name. A
    `Text` is printed as it is.
    """

    def render_str(self, text: str, **options) -> Text:
        """The `Text` of a string; rich calls this for every string that it prints or measures."""
        return super().render_str(shown(text), **options | {"markup": False, "emoji": False})
