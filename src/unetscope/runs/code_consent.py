"""The consent of a run's user to run the code that the run folder names, kept among its facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unetscope.base import InvalidArgument, RunFolderError, code_text, consent, is_consented
from unetscope.runs.description import OWN_LOOP
from unetscope.runs.folder import RunFolder

CONSENT, LOOP_NETWORK = "code signature", "own loop network"  # names of facts


def allow_code(folder: RunFolder, named: str | None = None) -> None:
    """See that the code which a run folder names may run: its user has named it on this machine, when the run began or now.

    named: what builds the network. What trains a run of a loop of its own is named with it, by `own_loops.name_loop`.

    Raises: RunFolderError for code that has not been named, InvalidArgument for other code than the run's.
    """
    network = _network(folder)
    code = network.get("code")
    if named is not None and named != code:
        of = code or (
            "the U-Net of this package" if folder.trained_here else "a loop that has not been named with --train"
        )
        raise InvalidArgument(f"{folder.path} is a run of {of}, not of {named}")
    if may_run_code(folder):
        return
    arguments, trained_by = network.get("arguments", ()), network.get("trained_by")
    if named is None or trained_by:
        words = f"--network {code}" + (f" --train {trained_by}" if trained_by else "")
        with_arguments = f", which is called with {', '.join(arguments)}" if arguments else ""
        raise RunFolderError(
            f"{folder.path} names code that has not been run on this machine by you{with_arguments}: if you trust it, say "
            f"{words}"
        )
    folder.note({CONSENT: consent(consented_text(network))})


def may_run_code(folder: RunFolder) -> bool:
    """Whether the code that a run folder names may run, if it names any."""
    network = _network(folder)
    return not network.get("code") or is_consented(consented_text(network), folder.facts.get(CONSENT, ""))


def _network(folder: RunFolder) -> dict[str, Any]:
    """How the network of a run, or of its retrainings, is built."""
    config = folder.configuration if folder.trained_here else folder.facts.get(OWN_LOOP, {})
    network: dict[str, Any] = config.get("network", {})
    return network


def consented_text(network: Mapping[str, Any]) -> str:
    """The code of a network's configuration with its arguments and with what trains it, as it is consented to."""
    trained_by = network.get("trained_by")
    return code_text(network["code"], [*network.get("arguments", ()), *([trained_by] if trained_by else [])])
