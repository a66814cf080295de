"""The command: parse, call, print."""

from unetscope.cli.main import app, main

__all__ = ["app", "main"]
