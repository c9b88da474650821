"""An interrupt that comes at a bad moment is raised after it."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mri_transfer.machine.interrupts import held_back


@pytest.fixture
def another_thread():
    """A thread to which the system can deliver signals, such as a library's."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.usefixtures("another_thread")
def test_an_interrupt_comes_at_the_end_even_if_another_thread_receives_it(times):
    reached = []

    def work():
        with held_back():
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            reached.append("its end")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_an_interrupt_nothing_changes():
    with held_back(), held_back():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if hasattr(signal, "pthread_sigmask"):
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_handler_of_the_callers_own_is_called_once():
    calls = []
    before = signal.signal(signal.SIGINT, lambda *_: calls.append("asked"))
    try:
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            assert not calls
        assert calls == ["asked"]
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_it_leaves_the_handler_alone():
    def work():
        with held_back():
            handlers.append(signal.getsignal(signal.SIGINT))

    handlers = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


@pytest.mark.skipif(sys.platform == "win32", reason="no processes that ignore an interrupt")
@pytest.mark.usefixtures("another_thread")
def test_a_process_started_meanwhile_ignores_it():
    code = "import time; time.sleep(1); print('whole')"
    with held_back():
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[0] == "whole\n"


HANGING = """
import sys, threading, time
import mri_transfer.__main__ as program, mri_transfer.cli as cli
program.EXIT_SECONDS = 0.5
def interrupted(arguments=None):
    threading.Thread(target=time.sleep, args=(60,)).start()  # the interpreter waits for it when it ends
    return 130
cli.main = interrupted
sys.exit(program.main())
"""


def test_an_interrupted_program_ends_even_if_a_thread_of_its_never_does():
    began = time.monotonic()
    assert subprocess.run([sys.executable, "-c", HANGING], timeout=40).returncode == 130
    assert time.monotonic() - began < 30


SWALLOWED = """
import gc, os, signal, sys, time
import mri_transfer.__main__ as program, mri_transfer.cli as cli
def interrupt(phase, info):
    if phase == "start":
        gc.callbacks.clear()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # the interrupt is raised here, and Python drops it
def work(arguments=None):
    try:
        gc.callbacks.append(interrupt)
        gc.collect()
        print("goes on")
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted")
        return 130
cli.main = work
sys.exit(program.main())
"""


def test_an_interrupt_that_python_drops_is_repeated():
    done = subprocess.run([sys.executable, "-c", SWALLOWED], capture_output=True, text=True, timeout=40)
    assert done.returncode == 130
    assert done.stdout.split("\n")[:2] == ["goes on", "interrupted"]
    assert done.stderr == ""
