"""`python -m server`: the same as `stele`."""

from server.cli import main

main()
