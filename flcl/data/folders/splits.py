"""Which folder of a data set is the training set, and which is the test set, by its name.

A folder is a split if its name has one known word and nothing else of meaning, in any spelling of
it: `Train`, `training_set`, `TEST-images`, `val2017`. Names that look like splits but are not
understood are refused: if they were read as classes or domains, test images would be trained on.
"""

import difflib
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

# What a word means; the longest word is looked for first. A "val" folder is the test set if there
# is no "test" folder.
_WORDS = {
    "train": ("training", "trainval", "trained", "train", "trains", "trn"),
    "test": ("testing", "tested", "tests", "test", "tst"),
    "val": (
        "validation", "validating", "validate", "valid", "vali", "val", "development", "devel",
        "dev", "evaluation", "eval", "heldout", "holdout",
    ),
}  # fmt: skip
_KIND = {word: kind for kind, words in _WORDS.items() for word in words}

# Words beside the known word that change nothing, such as that of `training_set`.
_FILLERS = (
    "datasets", "dataset", "data", "subset", "sets", "set", "splits", "split", "images", "image",
    "imgs", "img", "pictures", "pics", "photos", "files", "file", "folder", "dir", "directory",
    "samples", "examples", "partition", "part", "phase", "the", "my",
)  # fmt: skip

# Names of parts of a data set that say nothing about their use.
_UNKNOWN_PARTS = (
    "fold", "part", "partition", "split", "subset", "query", "gallery", "probe", "support",
    "unlabeled", "unlabelled", "labeled", "labelled", "extra", "reference", "seen", "unseen",
)  # fmt: skip

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "pictures", "photos", "jpeg", "jpg", "png")
"""Names of a folder that may be inside a class folder: it only says that it holds images."""

# Words that mean a split only beside another one of them: alone, `tr` may be a country.
_HINTS = {
    "train": ("tr", "tra", "learn", "learning", "fit", "fitting"),
    "test": (
        "te", "tes", "ts", "va", "vl", "exam", "predict", "prediction", "inference", "infer",
        "benchmark", "scoring",
    ),
}  # fmt: skip
# Words of other languages by their beginnings: `训练集`, with no space after the word, is the
# training set, and `entrenamiento` is training.
_BEGINNINGS = {
    "train": (
        "训练", "訓練", "学習", "학습", "훈련", "обуч", "entren", "entrain", "entraîn", "apprent",
        "trein", "addestr", "lern", "trän", "egit", "eğit",
    ),
    "test": (
        "测试", "測試", "验证", "驗證", "テスト", "検証", "테스트", "검증", "тест", "провер",
        "prueba", "essai", "épreuve", "teste", "prova", "prüf", "pruef", "verific", "sinama",
    ),
}  # fmt: skip

_ALIKE = 0.75  # similarity above which a word is a misspelt split word, such as `tset`


class Roles(NamedTuple):
    """The folders of a data set by their use; None = there is no such folder.

    Attributes:
      train: the folder of training images.
      test: the folder of test images.
      unread: other splits, which are not read because `test` is there.
      others: all other folders.
    """

    train: str | None
    test: str | None
    unread: tuple[str, ...]
    others: tuple[str, ...]


def roles(name: str, folders: Sequence[str], *, labelled: Sequence[str] | None = None) -> Roles:
    """The use of each of `folders`, the names of all folders at the top of a data set.

    labelled: those that have class folders; a test set without them is replaced by the validation
    set if there is one, as tests are often published without labels. None = all. Raises
    `ValueError` for two folders of one kind.
    """
    kinds: dict[str, list[str]] = {"train": [], "test": [], "val": []}
    for folder in folders:
        if kind := kind_of(folder):
            kinds[kind].append(folder)
    usable = kinds["test"] if labelled is None else [f for f in kinds["test"] if f in labelled]
    chosen = kinds["test"] if usable or not kinds["val"] else kinds["val"]
    for purpose, entries in (("training", kinds["train"]), ("test", chosen)):
        if len(entries) > 1:
            raise ValueError(
                f"{name}: {entries[0]!r} and {entries[1]!r} are both names of a {purpose} set; "
                "keep one of them, or move their images into one folder"
            )
    splits = {folder for entries in kinds.values() for folder in entries}
    train = kinds["train"][0] if kinds["train"] else None
    test = chosen[0] if chosen else None
    unread = tuple(f for f in folders if f in splits and f not in (train, test))
    return Roles(train, test, unread, tuple(f for f in folders if f not in splits))


def kind_of(folder: str) -> str | None:
    """ "train", "test" or "val" for the name of a split; None for every other name."""
    kind, rest = _taken_apart(folder)
    return kind if rest == "" else None


def check_understood(name: str, folders: Sequence[str], inside: str, *, nested: bool) -> None:
    """Raises `ValueError` if `folders`, all names in one folder, are splits that are not known.

    Two names are enough: the training and the test part of the same thing (`clean_train` and
    `clean_test`), or names that all are parts of a data set (`fold1` and `fold2`). One such name
    among others may be a class: a train is a vehicle. inside: the folder with these names; empty =
    the data set itself. nested: they hold folders, so a misspelt word (`tset`) is looked for, too.
    """
    pair = _parts(folders, nested)
    if pair is None:
        return
    first, second = sorted(pair)
    if inside and kind_of(first) and kind_of(second):
        raise ValueError(
            f"{name}: {inside!r} holds {first!r} and {second!r}, which are names of a split, but a "
            f"split must be at the top; name {name}/{inside}, or move them up to have "
            "train/<class>/<image> or train/<domain>/<class>/<image>"
        )
    raise ValueError(
        f"{name}: {first!r} and {second!r}{f' in {inside!r}' if inside else ''} look like parts of "
        "a split, and it is not known which of them is for training; name them train/ and test/ "
        "and put them at the top of the folder, as train/<class>/<image> or "
        "train/<domain>/<class>/<image>"
    )


def _parts(folders: Sequence[str], nested: bool) -> tuple[str, str] | None:
    """Two of the names that look like parts of a split; None if they are classes or domains."""
    apart = {folder: _taken_apart(folder) for folder in folders}
    halves: dict[str, dict[bool, str]] = {}
    for folder, (kind, rest) in apart.items():
        if kind:
            halves.setdefault(rest, {})[kind == "train"] = folder
    for both in halves.values():
        if len(both) == 2:
            return both[True], both[False]
    if len(folders) < 2:
        return None
    guesses = [apart[folder][0] or _guessed(folder, nested) for folder in folders]
    kinds = {"test" if guess == "val" else guess for guess in guesses}
    if None not in kinds and (len(kinds) > 1 or kinds == {"part"}):
        return folders[0], folders[1]
    return None


def _taken_apart(folder: str) -> tuple[str | None, str]:
    """(kind of the split word in a name, all that remains without fillers and numbers)."""
    tokens = _tokens(folder)
    for place, token in enumerate(tokens):
        kind, rest = _kind_of_token(token)
        if kind:
            others = [t for t in (*tokens[:place], rest, *tokens[place + 1 :]) if not _empty(t)]
            return kind, " ".join(others)
    return None, " ".join(tokens)


def _kind_of_token(token: str) -> tuple[str | None, str]:
    """The kind of one word, also of one that is joined with a filler, such as `trainset`."""
    if token in _KIND:
        return _KIND[token], ""
    for word in sorted(_KIND, key=len, reverse=True):
        for rest in (token.removeprefix(word), token.removesuffix(word)):
            if rest != token and _empty(rest):
                return _KIND[word], ""
    # `mytrain` and `x_train` belong to `mytest` and `x_test`; but `trainer` is a shoe.
    for word in ("train", "test"):
        if token.endswith(word):
            return word, token.removesuffix(word)
    return None, token


def _empty(token: str) -> bool:
    """Whether a word adds nothing to the word beside it."""
    return token == "" or token in _FILLERS or token.isdecimal()


def _tokens(folder: str) -> list[str]:
    """The words of a name in small letters: `TrainSet_2` is train, set, 2."""
    plain = unicodedata.normalize("NFKC", folder).strip()
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain)
    plain = re.sub(r"\b(held|hold)[\W_]out\b", "holdout", plain, flags=re.IGNORECASE)
    return re.findall(r"[^\W\d_]+|\d+", plain.casefold())


def _guessed(folder: str, nested: bool) -> str | None:
    """What a name may mean that is not understood: "train", "test", "part" or None."""
    tokens = _tokens(folder)
    if any(token in _UNKNOWN_PARTS for token in tokens):
        return "part"
    words = [token for token in tokens if not _empty(token)]
    if len(words) == 1:
        for kind in _HINTS:
            if words[0] in _HINTS[kind] or words[0].startswith(_BEGINNINGS[kind]):
                return kind
    if nested and len(tokens) == 1:
        for kind, words in (("train", ("train", "training")), ("test", ("test", "validation"))):
            if difflib.get_close_matches(tokens[0], words, n=1, cutoff=_ALIKE):
                return kind
    return None
