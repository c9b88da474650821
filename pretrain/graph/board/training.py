"""The training loop on a board: budget, schedule, saving, signals. It trains whatever graph it is given."""

import contextlib
import math
import os
import platform
import signal
import stat
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import states
from states import Problem, say

GRAPH = "graph/saved_model.pb"
STARTED = time.monotonic()
REPORT_SECONDS = 5.0
# Saving may block training for this share of the time; if saves are slow, there are fewer.
SAVING_SHARE = 0.01
# Number of slices used to detect a collapsed encoder.
LOOKED_AT = 128
# How long a finished training waits for space on a full disk.
PATIENCE_SECONDS, RETRY_SECONDS = 3600.0, 10.0


class Interrupts:
    """Ctrl-C and SIGTERM set `asked`, so that a save belongs to one step; a second one ends at once.

    If the terminal is closed, the training continues and its output goes to a file.
    """

    def __init__(self, log):
        self.asked, self._log = False, log
        signal.signal(signal.SIGINT, self._ask)
        signal.signal(signal.SIGTERM, self._ask)
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            signal.signal(signal.SIGHUP, self._hang_up)

    def _ask(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def _hang_up(self, number, frame):
        try:
            target = os.open(str(self._log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError:
            target = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            with contextlib.suppress(OSError):  # closed
                if stat.S_ISREG(os.fstat(stream).st_mode):
                    continue
            os.dup2(target, stream)


class Budget:
    """How far the training is, in steps or in seconds.

    In seconds, each moment adds its fraction of the time left, so the share used reaches 1 at the end whatever the
    speed.
    """

    def __init__(self, steps, seconds, spent, share):
        self.steps, self.seconds, self.spent = steps, seconds, spent
        self._share, self._share_at = share, spent
        self._last = deque(maxlen=5)
        self.finishing = 0.0

    def elapsed(self):
        """Seconds of training so far, excluding interruptions."""
        return self.spent + time.monotonic() - STARTED

    def progress(self, step):
        """Share of the budget used before this step; never falls."""
        if self.seconds is None:
            return min(1.0, step / self.steps)
        now, end = self.elapsed(), self.seconds - self.finishing
        if now > self._share_at:
            left = end - self._share_at
            worth = (now - self._share_at) / left if left > now - self._share_at else 1.0
            self._share += (1 - self._share) * worth
            self._share_at = now
        return min(1.0, self._share)

    def note_step(self, seconds):
        self._last.append(seconds)

    def step_seconds(self):
        return sum(self._last) / len(self._last) if self._last else 0.0

    def is_over(self, step):
        """Whether to begin no further step, as it would end too late."""
        if self.seconds is None:
            return step >= self.steps
        return self.elapsed() + self.finishing + self.step_seconds() / 2 >= self.seconds

    def left(self, step):
        """Estimated seconds until the end."""
        if self.seconds is not None:
            return max(0.0, self.seconds - self.elapsed())
        return (self.steps - step) * self.step_seconds()


def rate_share(progress, warmup):
    """Share of the peak learning rate: a linear rise over `warmup`, then half a cosine to zero."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


class Training:
    """From a slice store to trained weights.

    Args:
        folder: the runner's.
        card: content of graph.json.
        graph: the loaded graph.
        pairs: batches by step.
        options: the command line's.
        info: position of the saved training, or None.
    """

    def __init__(self, folder, card, graph, pairs, options, info):
        self.folder, self.card, self.graph, self.pairs, self.options = folder, card, graph, pairs, options
        self.info = info or {
            "step": 0,
            "seconds": 0.0,
            "share": 0.0,
            "first_loss": None,
            "last_loss": None,
            "rate_scale": 1.0,
            "diverged": [],
            "finished": False,
            "graph": graph_id(card),
            **identity(options, pairs.slices),
        }
        # Of the machine that continues it.
        self.info["machine"] = machine(graph.tf)
        self.info["data"] = {
            "store": str(pairs.slices.folder.resolve()),
            "fingerprint": pairs.slices.fingerprint,
            "slices": len(pairs.slices),
            "subjects": int(pairs.subject.max()) + 1,
        }
        self.budget = Budget(options.steps, options.seconds, self.info["seconds"], self.info["share"])
        self.lines = states.Lines(folder / "metrics.jsonl", self.info["step"])
        rows = np.linspace(0, len(pairs.slices) - 1, min(LOOKED_AT, len(pairs.slices))).astype(int)
        self.looked_at = pairs.slices.images(rows)
        self.interrupts = Interrupts(folder / "output.log")
        self.begin_report()
        self.saved_at, self.save_cost = self.info["seconds"], 0.0
        self.line, self.shown = "", False

    def begin_report(self):
        self.reported_at, self.reported_step = self.budget.elapsed(), self.info["step"]

    def train(self):
        """Until the budget is used.

        Raises:
            KeyboardInterrupt: the user interrupts; the training is saved.
            Problem: it diverged twice, or slices can no longer be read; the training is saved.
        """
        info, budget = self.info, self.budget
        if info["step"] == 0:
            self.save_or_fail()  # better to notice a full disk now than at three in the morning
        batches = self.pairs.read_ahead(info["step"])
        compiled = False
        try:
            while not (self.interrupts.asked or budget.is_over(info["step"])):
                before = time.monotonic()
                try:
                    batch = next(batches)
                except OSError as error:
                    self.save_or_fail()
                    raise Problem(
                        f"{self.pairs.slices.folder}: slices can't be read any more ({error}); {info['step']} steps "
                        "are saved. Bring the store back and run the same command again to continue"
                    ) from None
                info["share"] = budget.progress(info["step"])
                rate = (
                    self.card["peak_rate"]
                    * info["rate_scale"]
                    * rate_share(info["share"], self.card["warmup"])
                )
                loss = self.graph.step(batch, rate, info["share"])
                if not math.isfinite(loss):
                    batches.close()
                    batches = self.go_back(f"the loss is {loss}")
                    continue
                info["step"] += 1
                info["last_loss"] = loss
                if info["first_loss"] is None:
                    info["first_loss"] = loss
                if compiled:
                    budget.note_step(time.monotonic() - before)
                compiled = True
                if budget.elapsed() - self.reported_at >= REPORT_SECONDS or budget.is_over(info["step"]):
                    self.report(loss, rate)
                due = max(self.options.save_minutes * 60, self.save_cost / SAVING_SHARE)
                if budget.elapsed() - self.saved_at >= due and not self.save():
                    batches.close()
                    batches = self.go_back("the weights are not finite")
        finally:
            batches.close()
            self.end_line()
        if self.interrupts.asked:
            say(f"stopping at step {info['step']}: saving what is done (interrupt again to stop at once)")
            self.save_or_fail()
            raise KeyboardInterrupt
        info["finished"] = True
        self.save_at_last()

    def report(self, loss, rate):
        step, elapsed = self.info["step"], self.budget.elapsed()
        views = 2 * self.card["batch"] * (step - self.reported_step) / max(1e-6, elapsed - self.reported_at)
        self.lines.add(
            {
                "step": step,
                "seconds": round(elapsed, 2),
                "loss": round(loss, 5),
                "learning_rate": float(f"{rate:.4g}"),
                "views_per_second": round(views, 1),
            }
        )
        self.line = (
            f"step {step}, loss {loss:.3f}, {views:.0f} views/s, {self.budget.left(step) / 60:.1f} min left"
        )
        if sys.stderr.isatty():
            with contextlib.suppress(OSError):  # a terminal just closed
                sys.stderr.write(f"\r\033[K{self.line}")
                sys.stderr.flush()
            self.shown = True
        self.begin_report()

    def end_line(self):
        if self.shown:
            say("")
            self.shown = False

    def go_back(self, problem):
        """The first divergence returns to the last state with half the rate; the second ends the training."""
        self.end_line()
        at, scale = self.info["step"], self.info["rate_scale"] / 2
        diverged = self.info["diverged"] + [at]
        arrays, saved = states.load(self.folder / "state", say)
        self.graph.assign(arrays)
        # Time spent on undone steps still counts.
        for name in ("step", "last_loss", "first_loss"):
            self.info[name] = saved[name]
        self.info.update(diverged=diverged, rate_scale=scale)
        self.lines.drop_after(self.info["step"])
        self.begin_report()
        self.save_or_fail()
        if len(diverged) > 1:
            raise Problem(
                f"diverged: {problem} at step {at}, the second time with half the learning rate; export again with a "
                "lower --learning-rate"
            )
        say(f"{problem} at step {at}: going back to step {self.info['step']} with half the learning rate")
        return self.pairs.read_ahead(self.info["step"])

    def save_now(self):
        """Save; returns False if weights are not finite.

        Raises:
            OSError: it could not be written.
        """
        before = time.monotonic()
        arrays = self.graph.arrays()
        if arrays is None:
            return False
        self.info["share"] = self.budget.progress(self.info["step"])
        self.info["seconds"] = self.budget.elapsed()
        self.info["rank"] = round(self.graph.rank(self.looked_at), 2)
        states.save(self.folder / "state", arrays, self.info)
        self.saved_at, self.save_cost = self.budget.elapsed(), time.monotonic() - before
        self.budget.finishing = self.save_cost
        return True

    def save(self):
        """As save_now, but a full disk only gives a warning and a retry at the next save."""
        try:
            saved = self.save_now()
        except OSError as error:
            self.end_line()
            say(
                f"{self.folder}: could not be saved ({error.strerror or error}); training continues, and saving is "
                "tried again later. What was saved before is kept"
            )
            self.saved_at = self.budget.elapsed()
            return True
        if saved and self.line and not sys.stderr.isatty():
            say(self.line)
        return saved

    def save_or_fail(self):
        try:
            self.save_now()
        except OSError as error:
            raise Problem(
                f"{self.folder}: can't be written ({error.strerror or error}); make room and run the same command "
                "again to continue from the last save"
            ) from None

    def save_at_last(self):
        """Save the result of the night; wait for disk space for an hour at most."""
        deadline, reported = time.monotonic() + PATIENCE_SECONDS, False
        while True:
            try:
                return self.save_or_fail()
            except Problem as problem:
                if time.monotonic() >= deadline or self.interrupts.asked:
                    raise
                if not reported:
                    say(f"{problem}. Waiting for {PATIENCE_SECONDS / 60:.0f} minutes")
                reported = True
            time.sleep(RETRY_SECONDS)


def graph_id(card):
    """The identity of an exported graph."""
    return card["files"][GRAPH]


def machine(tf):
    """The software and hardware, for the encoder's provenance."""
    model = None
    with contextlib.suppress(OSError):
        model = Path("/proc/device-tree/model").read_bytes().decode("utf-8", "replace").strip("\0 \n")
    return {
        "board": model,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "gpu": len(tf.config.list_physical_devices("GPU")),
    }


def identity(options, slices):
    """Settings that must not change when a training continues."""
    budget = {"steps": options.steps} if options.steps else {"hours": options.seconds / 3600}
    return {"budget": budget, "fingerprint": slices.fingerprint}
