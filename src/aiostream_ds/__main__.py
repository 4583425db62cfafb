"""`python -m aiostream_ds` runs `aiostream-ds dev`: the built-in plugin in this terminal."""

import sys

from aiostream_ds.cli import main

if __name__ == "__main__":
    sys.exit(main(["dev", *sys.argv[1:]]))
