"""``python -m longshort.train`` is ``longshort train``."""

import sys

from longshort.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
