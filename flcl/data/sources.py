"""Where images come from. A new source is one function and one line in `SOURCES`."""

from collections.abc import Callable

from flcl import config, settings
from flcl.data import arrays, folders, tfds_source
from flcl.data.base import Source, Split, check_classes

__all__ = ["SOURCES", "Source", "Split", "load_source"]

# Accepted form of `data.source` -> loader(what stands behind the colon, settings, threads).
SOURCES: dict[str, Callable[[str, settings.Data, int], Source]] = {
    "digits": arrays.load_digits,
    "fashion16": arrays.load_fashion16,
    "folder:PATH": folders.load_folder,
    "npz:PATH": arrays.load_npz,
    "tfds:NAME": tfds_source.load_tfds,
}


def load_source(data: settings.Data, *, threads: int = 4) -> Source:
    """Training and test images of `data.source`, uint8 [N, image_size, image_size, channels].

    They are decoded by `threads` threads and kept when a split takes at most `data.memory_gib` GiB;
    otherwise `Split.images` decodes what is asked for. Raises `ValueError` for an unknown source,
    for a class without images and for whatever the source itself refuses.
    """
    kind, _, argument = data.source.partition(":")
    forms = {form.partition(":")[0]: form for form in SOURCES}
    form = forms.get(kind)
    # "digits:3" and a bare "folder" are as wrong as an unknown word.
    if form is None or (":" in form) != bool(argument):
        raise ValueError(
            f"data.source={data.source!r}: accepted are {', '.join(SOURCES)}."
            f"{config.did_you_mean(kind, list(forms)) if form is None else ''}"
        )
    return check_classes(SOURCES[form](argument, data, threads))
