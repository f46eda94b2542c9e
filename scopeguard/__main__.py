"""``python -m scopeguard``: the command line."""

from scopeguard.cli import main

main()
