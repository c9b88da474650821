"""How processes find one another and what they refuse: all in one process, over real sockets."""

import dataclasses
import socket
import threading

import pytest

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.devices import greeting
from mri_transfer.pretrain.devices.place import Place

OURS = {"--batch": 64, "the version of keras": "3.15.0", "the content of the slice store": "abc"}


@pytest.fixture
def place():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return Place("127.0.0.1", port, 3, 0)


@pytest.fixture
def meet(place, monkeypatch):
    """Let process 0 and others meet; returns what each got, or the error with which it ended."""
    monkeypatch.setattr(greeting, "PATIENCE_SECONDS", 1.5)

    def run(*others, disturb=lambda: None):
        got = {}

        def attempt(key, call):
            try:
                got[key] = call()
            except UserError as error:
                got[key] = str(error)

        calls = {0: lambda: greeting.gather(place, OURS)}
        for key, (process, processes, about) in enumerate(others, start=1):
            where = dataclasses.replace(place, process=process, processes=processes)
            calls[key] = lambda where=where, about=about: greeting.join(where, about)
        threads = [threading.Thread(target=attempt, args=item) for item in calls.items()]
        threads[0].start()
        disturb()
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            thread.join(20)
        return got

    return run


def test_all_find_process_0_and_learn_where_its_jax_will_be(meet):
    got = meet((1, 3, OURS), (2, 3, OURS))
    connections, hosts, address = got[0]
    assert sorted(connections) == [1, 2]
    assert sorted(hosts) == [0, 1, 2]
    for other in (1, 2):
        connection, host, jax = got[other]
        assert (host, jax) == (hosts[0], address)
        connections[other].send({"do": "step"})
        assert connection.receive()[0] == {"do": "step"}


def test_a_port_scanner_is_ignored(meet, place):
    def scan():
        for noise in (b"GET / HTTP/1.0\r\n\r\n", b'{"bytes": 0}\n', b""):
            for _ in range(50):
                try:
                    with socket.create_connection((place.host, place.port), 5) as sock:
                        sock.sendall(noise)
                    break
                except ConnectionRefusedError:
                    threading.Event().wait(0.05)

    got = meet((1, 3, OURS), (2, 3, OURS), disturb=scan)
    assert sorted(got[0][0]) == [1, 2]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ((1, 3, {**OURS, "--batch": 32}), ["process 1", "--batch is 32 there, 64 here", "same settings"]),
        ((1, 3, {**OURS, "the content of the slice store": "xyz"}), ["content of the slice store is xyz"]),
        (
            (1, 3, {**OURS, "the version of keras": "3.12.0"}),
            ["version of keras is 3.12.0 there, 3.15.0 here"],
        ),
        ((1, 3, None), ["another version of this program"]),
        ((1, 2, OURS), ["--processes is 2 there, 3 here"]),
        ((5, 3, OURS), ["process 5", "its own --process"]),
    ],
)
def test_one_that_differs_ends_all_with_the_same_line(meet, other, words):
    got = meet(other)
    assert got[0] == got[1]
    for word in words:
        assert word in got[0]


def test_two_with_one_number_are_refused(meet):
    got = meet((1, 3, OURS), (1, 3, OURS))
    assert "there is one with this number already" in got[0]
    assert got[0] == got[1] == got[2]


def test_one_that_never_comes_is_named(meet):
    got = meet((1, 3, OURS))
    assert "process 2 did not come" in got[0]
    assert got[1] == got[0]


def test_process_0_that_is_not_there(place, monkeypatch):
    monkeypatch.setattr(greeting, "PATIENCE_SECONDS", 0.3)
    with pytest.raises(UserError, match="process 0 is not there"):
        greeting.join(dataclasses.replace(place, process=1), OURS)
    with pytest.raises(UserError, match="no such host"):
        greeting.join(Place("no-such-host.invalid", 9000, 2, 1), OURS)


def test_a_port_that_is_taken(place):
    with (
        socket.create_server((place.host, place.port)),
        pytest.raises(UserError, match="give a free port"),
    ):
        greeting.gather(place, OURS)


def test_what_must_be_the_same_leaves_out_what_may_differ(small_store):
    store = SliceStore.open(small_store)
    config = PretrainConfig(store=small_store, out="here", steps=3)
    elsewhere = dataclasses.replace(config, out="there", process=1, memory=4.0, save_minutes=1.0)
    here, there = greeting.about(config, store), greeting.about(elsewhere, store)
    assert greeting.difference(here, there) is None
    assert here["the content of the slice store"]
    other = greeting.about(dataclasses.replace(config, seed=1, method="byol"), store)
    assert (
        greeting.difference(here, other) == "--method is byol there, simclr here; --seed is 1 there, 0 here"
    )
