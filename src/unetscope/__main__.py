"""`python -m unetscope`: the command."""

from unetscope.cli import main

if __name__ == "__main__":
    main()
