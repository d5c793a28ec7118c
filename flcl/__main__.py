"""`python -m flcl NAME ...` is `flcl NAME ...`."""

import sys

from flcl.programs import main

if __name__ == "__main__":
    sys.exit(main())
