"""`python -m unetscope`: the command."""

from unetscope.cli.main import main

if __name__ == "__main__":
    main()
