"""`python -m confide.cli` is `confide`."""

from confide.cli import main

main()
