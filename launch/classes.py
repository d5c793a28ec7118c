"""Lists the classes of a run, writes them to files, and removes them.

Usage:
  python launch/classes.py list --workdir=DIR
  python launch/classes.py export --workdir=DIR --out=DIR [--classes=cat,dog] [flags]
  python launch/classes.py remove --workdir=DIR --classes=cat,dog

Examples:
  python launch/classes.py list --workdir=runs/digits
  python launch/classes.py export --workdir=runs/digits --classes=3,5 --out=digits
  python launch/classes.py export --workdir=runs/digits --trunk --out=digits

Generators: export writes one safetensors file for each class, with its factors, its trunk's SHA-256
and where it comes from. --merged writes the whole network of a class instead, --trunk the trunk.
remove: no byte of the factors of a class stays, and no other class changes. If it is stopped, the
same command ends it.
Classifiers: export writes the low-rank update of the transformer as a PEFT folder.
"""

import _start  # noqa: F401 # isort: skip
import sys

from flcl import cli
from flcl.programs import classes

if __name__ == "__main__":
    sys.exit(cli.main(classes.main, doc=__doc__, define=classes.define, takes_words=True))
