"""The consent of a run's user to run the code that the run folder names, kept among its facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unetscope.base import InvalidArgument, RunFolderError, code_text, consent, is_consented
from unetscope.runs.folder import RunFolder

CONSENT, OWN_LOOP = "code signature", "own loop"  # names of facts


def allow_code(folder: RunFolder, named: str | None = None) -> None:
    """See that the code which a run folder names may run: its user has named it on this machine, when the run began or now.

    Raises: RunFolderError for code that has not been named, InvalidArgument for other code than the run's.
    """
    network = folder.facts.get(OWN_LOOP, folder.configuration).get("network", {})
    code = network.get("code")
    if named is not None and named != code:
        raise InvalidArgument(f"{folder.path} is a run of {code or 'the U-Net of this package'}, not of {named}")
    if code is None:
        return
    text = consented_text(network)
    if is_consented(text, folder.facts.get(CONSENT, "")):
        return
    if named is None:
        raise RunFolderError(
            f"{folder.path} names code that has not been run on this machine by you: if you trust it, say --network {code}"
        )
    folder.note({CONSENT: consent(text)})


def consented_text(network: Mapping[str, Any]) -> str:
    """The code of a network's configuration with its arguments and with what trains it, as it is consented to."""
    trained_by = network.get("trained_by")
    return code_text(network["code"], [*network.get("arguments", ()), *([trained_by] if trained_by else [])])
