"""`python -m fedmd`: the command line, where its script is not on the path."""

from fedmd.cli.main import main

main()
