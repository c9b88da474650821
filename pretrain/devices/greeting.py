"""How the processes of a run find one another, and make sure that they are about the same thing."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

from mri_transfer import progress
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.machine import device
from mri_transfer.options import as_dict
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.devices.channel import Connection, Message
from mri_transfer.pretrain.devices.place import Place
from mri_transfer.pretrain.run.continuing import FREE_TO_CHANGE

PROGRAM = "mri-transfer pretrain"
# How long the first one waits for the last; machines start jobs at different times.
PATIENCE_SECONDS = 300.0
# What a newcomer has to introduce itself; a port scanner doesn't.
INTRODUCTION_SECONDS = 10.0
LOOPBACK = ("127.", "localhost")
# Other versions of these may give other numbers.
SAME_VERSIONS = ("mri-transfer", "keras", "jax")


def about(config: PretrainConfig, store: SliceStore) -> dict[str, Any]:
    """What all processes must have in common, by the words that name it."""
    settings = {name: value for name, value in as_dict(config).items() if name not in FREE_TO_CHANGE}
    versions = device.versions()
    return {
        **{f"--{name.replace('_', '-')}": value for name, value in settings.items()},
        **{f"the version of {name}": versions.get(name) for name in SAME_VERSIONS},
        "the content of the slice store": store.fingerprint[:12],
    }


def difference(ours: dict[str, Any], theirs: Any) -> str | None:
    """What differs between two :func:`about`, in words; None if nothing does."""
    if not isinstance(theirs, dict):
        return "another version of this program"
    found = [
        f"{name} is {theirs.get(name)} there, {ours.get(name)} here"
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    ]
    return "; ".join(found) or None


def gather(place: Place, ours: dict[str, Any]) -> tuple[dict[int, Connection], dict[int, str], str]:
    """Process 0 waits until all others are there.

    Args:
        place: of this process.
        ours: what :func:`about` says here.

    Returns:
        Connections and host names by process, and the address at which JAX of process 0 is to be found.

    Raises:
        UserError: the port is taken, one does not come, or has other settings, slices or versions; those that are
            there are told.
    """
    local = place.host.startswith(LOOPBACK)
    try:
        server = socket.create_server((place.host if local else "", place.port))
    except OSError as error:
        raise UserError(
            f"--coordinator {place.address}: can't be listened at ({error.strerror or error}); give a free port of "
            "this machine"
        ) from None
    found: dict[int, Connection] = {}
    hosts = {0: socket.gethostname()}
    with server:
        server.settimeout(0.5)
        until, told = time.monotonic() + PATIENCE_SECONDS, 0.0
        try:
            while len(found) < place.processes - 1:
                missing = [str(i) for i in range(1, place.processes) if i not in found]
                if time.monotonic() > until:
                    raise UserError(
                        f"--processes {place.processes}: process {', '.join(missing)} did not come within "
                        f"{PATIENCE_SECONDS / 60:.0f} minutes; start the same command there with --coordinator "
                        f"{place.address} and its own --process"
                    )
                if time.monotonic() > told:
                    told = time.monotonic() + 30
                    progress.say(
                        f"process 0 of {place.processes} waits for {', '.join(missing)} at {place.address}"
                    )
                try:
                    connection = Connection(server.accept()[0], INTRODUCTION_SECONDS)
                except TimeoutError:
                    continue
                newcomer = _welcomed(connection, place, ours, found)
                if newcomer is not None:
                    process, host = newcomer
                    found[process], hosts[process] = connection, host
        except UserError as error:
            for connection in found.values():
                _refuse(connection, str(error))
            raise
    jax_address = f"{place.host}:{_free_port(place.host if local else '')}"
    for connection in found.values():
        connection.send({"welcome": jax_address, "host": hosts[0]})
    return found, hosts, jax_address


def _welcomed(
    connection: Connection, place: Place, ours: dict[str, Any], found: dict[int, Connection]
) -> tuple[int, str] | None:
    """Number and host of a newcomer; None for something that is none of us."""
    try:
        hello, _ = connection.receive(most=0)
    except OSError:
        connection.close()
        return None
    if hello.get("program") != PROGRAM or not isinstance(hello.get("process"), int):
        connection.close()
        return None
    process, host = hello["process"], str(hello.get("host"))
    who = f"process {process} ({host})"
    line = None
    if hello.get("processes") != place.processes:
        line = (
            f"{who}: --processes is {hello.get('processes')} there, {place.processes} here; give all the same"
        )
    elif process in found or not 0 < process < place.processes:
        line = f"{who}: there is one with this number already; give each its own --process"
    elif differs := difference(ours, hello.get("about")):
        line = f"{who} is not about the same run ({differs}); all need the same settings, slices and package"
    if line is not None:
        _refuse(connection, line)
        raise UserError(line)
    return process, host


def _refuse(connection: Connection, line: str) -> None:
    with contextlib.suppress(OSError):
        connection.send({"refused": line})
    connection.close()


def join(place: Place, ours: dict[str, Any]) -> tuple[Connection, str, str]:
    """Any other process finds process 0.

    Returns:
        The connection, the host name of process 0, and the address at which its JAX is to be found.

    Raises:
        UserError: it is not there, or this process differs from it.
    """
    until, told = time.monotonic() + PATIENCE_SECONDS, False
    while True:
        try:
            connection = Connection(
                socket.create_connection((place.host, place.port), timeout=5), PATIENCE_SECONDS + 30
            )
            break
        except socket.gaierror:
            raise UserError(f"--coordinator {place.address}: no such host") from None
        except OSError as error:
            if time.monotonic() > until:
                raise UserError(
                    f"--coordinator {place.address}: process 0 is not there ({error.strerror or error}); start it "
                    "with the same --coordinator, and let the port through"
                ) from None
        if not told:
            told = True
            progress.say(
                f"process {place.process} of {place.processes} waits for process 0 at {place.address}"
            )
        time.sleep(0.5)
    hello: Message = {
        "program": PROGRAM,
        "process": place.process,
        "processes": place.processes,
        "host": socket.gethostname(),
        "about": ours,
    }
    try:
        connection.send(hello)
        answer, _ = connection.receive(most=0)
    except OSError:
        raise UserError(
            f"--coordinator {place.address}: process 0 is gone; run the same command again on every host"
        ) from None
    if "welcome" not in answer:
        raise UserError(
            str(answer.get("refused", f"--coordinator {place.address}: is another program's address"))
        )
    return connection, str(answer.get("host")), str(answer["welcome"])


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as server:
        return server.getsockname()[1]
