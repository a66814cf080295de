"""`python -m unetscope`: the command. Imports the command line."""

from unetscope.cli import main

if __name__ == "__main__":
    main()
