"""`python -m benchmarks`: what `stele bench` runs."""

import sys

from server.cli import app

if __name__ == "__main__":
    app(["bench", *sys.argv[1:]])
