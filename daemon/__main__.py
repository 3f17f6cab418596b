"""`python -m daemon` is `tracerd`."""

from daemon.cli import main

main()
