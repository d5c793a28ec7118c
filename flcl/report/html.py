"""How pages are made of templates: what a stranger's run holds is text on a page, never markup."""

import jinja2

from flcl.shown import shown


def environment(room: str) -> jinja2.Environment:
    """The templates of a room, such as `flcl.report`; every value is escaped and printable.

    A name that a template uses and does not get is an error.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader(room),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: shown(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
