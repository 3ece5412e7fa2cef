"""`python -m handsell` is the command line."""

from handsell.cli import main

main()
