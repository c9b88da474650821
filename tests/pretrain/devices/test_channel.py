"""What processes say to one another over real connections, and how they learn that one is gone."""

import queue
import socket
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mri_transfer.pretrain.devices.channel import Connection, Watch, packed, unpacked


@pytest.fixture
def ends():
    """Two connected ends, and what both are made of."""
    a, b = socket.create_server(("127.0.0.1", 0)), None
    with a:
        b = socket.create_connection(a.getsockname())
        other = a.accept()[0]
    yield Connection(b, 2.0), Connection(other, 2.0), b, other
    b.close()
    other.close()


class Ears:
    """Remembers what a watch hears."""

    def __init__(self):
        self.heard, self.lost = queue.Queue(), queue.Queue()

    def watch(self, connection, **options):
        return Watch(
            {3: connection}, lambda *word: self.heard.put(word), lambda who: self.lost.put(who), **options
        )


def test_words_and_bytes_arrive_in_order_and_whole(ends):
    here, there, *_ = ends
    ears = Ears()
    watch = ears.watch(there)
    payload = np.random.default_rng(0).bytes(3 << 20)
    here.send({"do": "step", "rate": 0.1 + 0.2, "share": 1e-300})
    here.send({"do": "assign"}, payload)
    here.send({"do": "end", "line": "zwei\nZeilen"})
    words = [ears.heard.get(timeout=5) for _ in range(3)]
    watch.close()
    assert words[0] == (3, {"do": "step", "rate": 0.1 + 0.2, "share": 1e-300}, b"")  # to the last bit
    assert words[1] == (3, {"do": "assign"}, payload)
    assert words[2][1]["line"] == "zwei\nZeilen"


def test_an_end_that_closes_is_lost_at_once(ends):
    _, there, sock, _ = ends
    ears = Ears()
    watch = ears.watch(there)
    began = time.monotonic()
    sock.shutdown(socket.SHUT_RDWR)  # what the kernel does for a process that was killed
    assert ears.lost.get(timeout=5) == 3
    assert time.monotonic() - began < 1
    watch.close()


def test_an_end_that_says_nothing_is_lost_after_a_while_and_one_that_lives_is_not(ends):
    here, there, *_ = ends
    there.wait_for(0.4)
    here.wait_for(0.4)
    silent, alive = Ears(), Ears()
    watch = silent.watch(there, beat=0.1)  # it hears nothing from `here`, and says that it lives itself
    time.sleep(0.1)
    other = alive.watch(here, beat=10.0)
    assert silent.lost.get(timeout=5) == 3
    assert alive.lost.empty()
    assert silent.heard.empty()  # signs of life are no news
    watch.close()
    other.close()


def test_what_was_released_is_not_missed(ends):
    _, there, sock, _ = ends
    ears = Ears()
    watch = ears.watch(there)
    watch.release()
    sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(queue.Empty):
        ears.lost.get(timeout=0.3)
    watch.close()


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"{}\n",
        b'{"bytes": 9}\nshort',
        b"[1]\n",
        b"\xff\xfe\n",
        b'{"bytes": "x"}\n',
        b'{"bytes": -1}\n',
        b"7\n",
    ],
)
def test_another_program_is_no_process_of_ours(ends, noise):
    _, there, sock, _ = ends
    sock.sendall(noise)
    sock.shutdown(socket.SHUT_WR)
    with pytest.raises(OSError, match=r"closed|not a message"):
        there.receive()


def test_a_pulse_is_passed_on(ends):
    here, there, *_ = ends
    ears, said = Ears(), iter([None, {"say": "asked"}])
    speaks = Ears().watch(here, pulse=lambda: next(said, None), beat=0.1)
    hears = ears.watch(there)
    assert ears.heard.get(timeout=5)[1] == {"say": "asked"}
    speaks.close()
    hears.close()


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.sampled_from(["model/0001/kernel", "optimizer/0002/momentum", "x"]),
        arrays.arrays(
            st.sampled_from(["float32", "uint32", "int64", "float64"]),
            arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        ),
    )
)
def test_arrays_come_back_as_they_were(given_arrays):
    found = unpacked(packed(given_arrays))
    assert list(found) == list(given_arrays)
    for name, array in given_arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_arrays_that_hold_objects_are_not_read():
    with pytest.raises(ValueError, match="pickle"):
        unpacked(packed({"x": np.array([object()])}))
