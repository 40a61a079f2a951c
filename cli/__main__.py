"""`python -m cli` is `hazardgate`: how the demo starts its own parts with the interpreter it runs in."""

from cli.commands import main

main()
