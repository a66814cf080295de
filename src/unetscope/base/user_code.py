"""Code of the user's that builds a network: its arguments, and the consent to run it.

Code that a file names runs only where its user has named it, since a file from outside may name any. The consent is a
signature in the file, made with a key that stays on this machine.
"""

from __future__ import annotations

import ast
import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs

from unetscope.base.errors import InvalidArgument

KEY_BYTES = 32


def cache_folder() -> Path:
    """The user's cache folder, or the environment's UNETSCOPE_CACHE."""
    folder = os.environ.get("UNETSCOPE_CACHE")
    return Path(folder) if folder else platformdirs.user_cache_path("unetscope")


def parse_arguments(texts: Iterable[str]) -> dict[str, Any]:
    """Arguments such as `width=16` by name: numbers, lists and the like as Python writes them, all else as text.

    Raises: InvalidArgument for one without a name, or two of one name.

    >>> parse_arguments(["features=[8, 16]", "norm=batch"])
    {'features': [8, 16], 'norm': 'batch'}
    """
    values: dict[str, Any] = {}
    for argument in texts:
        name, equals, text = argument.partition("=")
        if not equals or not name.isidentifier() or name in values:
            raise InvalidArgument(f"argument {argument!r} of the network: expected NAME=VALUE, each name once")
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            values[name] = text
    return values


def code_text(code: str, arguments: Iterable[str]) -> str:
    """The name of code with its arguments, as it is consented to."""
    return "\n".join([code, *arguments])


def consent(code: str) -> str:
    """A signature of the name of code, which the user of this machine alone can make; empty if no key can be kept.

    >>> is_consented("networks.py:Net", consent("networks.py:Net")), is_consented("os:system", consent("networks.py:Net"))
    (True, False)
    """
    key = _key()
    return hmac.new(key, code.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest() if key else ""


def is_consented(code: str, signature: str) -> bool:
    """Whether the user of this machine has let this code run."""
    return bool(signature) and hmac.compare_digest(consent(code).encode(), signature.encode("utf-8", "surrogatepass"))


def _key() -> bytes:
    """The key of this user on this machine, made at its first use."""
    path = cache_folder() / "key"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent) as beside:  # readable by its owner alone
                beside.write(secrets.token_bytes(KEY_BYTES))
                beside.flush()
                with suppress(FileExistsError):  # another process was faster
                    os.link(beside.name, path)
        key = path.read_bytes()
    except OSError:
        return b""
    return key if len(key) == KEY_BYTES else b""
