#!/usr/bin/env python3
"""Trains the graph beside this file on a slice store, for a fixed time or number of steps.

    python3 runner.py STORE --hours 8

It needs TensorFlow and NumPy alone, from Python 3.6 on. Killed, interrupted or cut off from power, the same command
continues; time off doesn't count. Ctrl-C saves and ends it; closing the terminal doesn't. Afterwards
`mri-transfer import-graph` on a modern machine makes an ordinary run of this folder.
"""

import argparse
import os
import re
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import states
from slices import Pairs, Slices
from states import NUMBER, NUMBER_OR_NONE, Problem, say
from training import GRAPH, Training, graph_id, identity

FORMAT = 1
MOST_PAIRS = 1 << 16  # in a step
CARD = {
    "files": dict,
    "tensorflow": str,
    "method": str,
    "backbone": str,
    "size": int,
    "slice_size": int,
    "batch": int,
    "seed": int,
    "positives": dict,
    "max_mm": NUMBER,
    "negatives": bool,
    "peak_rate": NUMBER,
    "warmup": NUMBER,
    "chance": NUMBER_OR_NONE,
    "state": list,
}
VARIABLE = {"name": str, "shape": list, "dtype": str}
INFO = {
    "graph": str,
    "budget": dict,
    "fingerprint": str,
    "finished": bool,
    "step": int,
    "seconds": NUMBER,
    "share": NUMBER,
    "rate_scale": NUMBER,
    "diverged": list,
    "first_loss": NUMBER_OR_NONE,
    "last_loss": NUMBER_OR_NONE,
}


def effective_rank(features):
    """exp of the entropy of the singular values (RankMe): near 1 when the features of all slices are the same."""
    singular = np.linalg.svd(np.asarray(features, np.float64), compute_uv=False)
    if not singular.any():
        return 0.0
    share = singular / singular.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def read_card(folder):
    """graph.json, after checking that the files it names are those exported with it."""
    path = folder / "graph.json"
    card = states.read_json(path)
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise Problem(f"{path}: is from another version than this runner; copy the whole folder again")
    wrong = states.wrong_fields(card, CARD) or [name for name, fine in _sensible_card(card) if not fine]
    if wrong:
        raise Problem(f"{path}: is damaged ({', '.join(wrong)}); copy the whole folder again")
    for name, digest in card["files"].items():
        file = folder / name
        try:
            is_here = file.is_file()
        except ValueError:  # no name that a file can have
            is_here = False
        if not is_here:
            raise Problem(f"{file}: missing; copy the whole folder again")
        if states.sha256(file) != digest:
            raise Problem(
                f"{file}: is not the file that was exported with graph.json; copy the whole folder again"
            )
    return card


def _sensible_card(card):
    """Fields of the right types, each with whether its value is one that an export writes."""
    positives = card["positives"]
    return [
        ("files", GRAPH in card["files"]),
        ("tensorflow", re.match(r"\d{1,4}(\.\d{1,4}){0,2}$", card["tensorflow"])),
        ("slice_size", card["slice_size"] > 0),
        ("batch", 0 < card["batch"] <= MOST_PAIRS),
        ("seed", card["seed"] >= 0),
        ("positives", positives and not states.wrong_fields(positives, dict.fromkeys(positives, NUMBER))),
        ("positives", set(positives) <= {"adjacent", "same"}),
        ("max_mm", card["max_mm"] > 0),
        ("peak_rate", card["peak_rate"] > 0),
        ("warmup", 0 <= card["warmup"] < 1),
        ("state", not any(states.wrong_fields(entry, VARIABLE) for entry in card["state"])),
    ]


def _sensible_info(info):
    """The same for the position of a saved training."""
    budget = info["budget"]
    return [
        ("budget", len(budget) == 1 and not states.wrong_fields(budget, dict.fromkeys(budget, NUMBER))),
        ("step", info["step"] >= 0),
        ("seconds", info["seconds"] >= 0),
        ("share", 0 <= info["share"] <= 1),
        ("rate_scale", info["rate_scale"] > 0),
    ]


def tensorflow_for(card):
    """This board's TensorFlow, if it can run the graph."""
    required = card["tensorflow"]
    try:
        import tensorflow as tf
    except ImportError as error:
        raise Problem(
            f"TensorFlow {required} or newer is needed and can't be imported here ({error}); on a Jetson install "
            "NVIDIA's build for your JetPack, see docs/boards.md"
        ) from None
    version = tf.__version__
    if [int(number) for number in version.split(".")[:2]] < [int(number) for number in required.split(".")]:
        raise Problem(
            f"this graph needs TensorFlow {required} or newer, and this is {version}; export it again with "
            f"--for tf{'.'.join(version.split('.')[:2])} if there is such a choice, or update TensorFlow"
        )
    tf.get_logger().setLevel("ERROR")
    tf.config.set_soft_device_placement(True)  # operations without a GPU kernel run on the CPU
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # the CPU shares its memory
    return tf


class Graph:
    """The exported graph and its variables.

    Args:
        tf: the module.
        folder: the runner's.
        card: content of graph.json.
    """

    def __init__(self, tf, folder, card):
        self.tf, self.folder = tf, folder
        try:
            self.module = tf.saved_model.load(str(folder / "graph"))
        except Exception as error:
            raise Problem(
                f"{folder / 'graph'}: TensorFlow {tf.__version__} can't load it "
                f"({' '.join(str(error).split())[:300]}); export it again, for this TensorFlow"
            ) from None
        expected = {entry["name"]: (tuple(entry["shape"]), entry["dtype"]) for entry in card["state"]}
        state = getattr(self.module, "state", ())
        actual = [(tuple(v.shape.as_list()), v.dtype.name) for v in state]
        if list(expected.values()) != actual:
            raise Problem(
                f"{folder}: graph.json is of another graph than graph/; copy the whole folder again"
            )
        self.variables = dict(zip(expected, state))

    def step(self, batch, rate, share):
        """One optimizer step; returns the loss before it."""
        a, b, subject = batch
        tensor = self.tf.constant
        rate, share = tensor(rate, "float32"), tensor(share, "float32")
        try:
            return float(self.module.train_step(tensor(a), tensor(b), tensor(subject), rate, share))
        except self.tf.errors.ResourceExhaustedError:
            raise Problem(
                f"out of memory with {len(a)} pairs; what was saved is kept. Close other programs, or export again "
                "with a smaller --batch or with --micro-batch"
            ) from None
        except (TypeError, ValueError) as error:
            raise Problem(
                f"{self.folder}: graph/ does not take {len(a)} pairs of {a.shape[1]} px "
                f"({' '.join(str(error).split())[:100]}); copy the whole folder again"
            ) from None

    def rank(self, images):
        """Effective rank of the encoder's features of some slices."""
        constant = self.tf.constant
        parts = [self.module.embed(constant(images[i : i + 32])).numpy() for i in range(0, len(images), 32)]
        return effective_rank(np.concatenate(parts))

    def arrays(self):
        """Every number that changes while training, by name; None if one is not finite."""
        arrays = {name: variable.numpy() for name, variable in self.variables.items()}
        fine = all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f")
        return arrays if fine else None

    def assign(self, arrays):
        """Continue from numbers returned by :meth:`arrays`."""
        for name, variable in self.variables.items():
            array = arrays.get(name)
            shape = tuple(variable.shape.as_list())
            if array is None or array.shape != shape or array.dtype.kind not in "biuf":
                raise Problem(
                    f"{self.folder / 'state'}: its weights are not of this graph ({name} differs); "
                    "put it back beside the graph it was trained with, or remove it to start over"
                )
        for name, variable in self.variables.items():
            variable.assign(arrays[name].astype(variable.dtype.as_numpy_dtype))


def check_same_training(info, card, options, slices):
    """Only continue a training with the graph, budget and slices it began with."""
    wrong = states.wrong_fields(info, INFO) or [name for name, fine in _sensible_info(info) if not fine]
    if wrong:
        raise Problem(
            f"state/: is damaged ({', '.join(wrong)}); bring a copy of it back, or remove it to start over"
        )
    if info["graph"] != graph_id(card):
        raise Problem(
            "state/: is of another graph; put it back beside the graph it was trained with, or remove it"
        )
    current = identity(options, slices)
    if info["budget"] != current["budget"]:
        name, value = next(iter(info["budget"].items()))
        raise Problem(
            f"this folder holds a training with --{name} {value:g}; give the same budget to continue it, or remove "
            "state/ to start over"
        )
    if info["fingerprint"] != current["fingerprint"]:
        raise Problem(
            f"{slices.folder}: has other slices than those this training was begun with; give the same"
        )


def positive(kind):
    def convert(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text}: must be above 0")
        return value

    return convert


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="runner.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "store", type=Path, metavar="STORE", help="slice store, made by `mri-transfer slices`"
    )
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--hours", type=positive(float), metavar="H", help="time budget, everything included")
    budget.add_argument("--minutes", type=positive(float), metavar="M", help="time budget in minutes")
    budget.add_argument("--steps", type=positive(int), metavar="N", help="number of steps, instead of a time")
    parser.add_argument(
        "--save-minutes", type=positive(float), default=5.0, metavar="M", help="save this often (default: 5)"
    )
    options = parser.parse_args(arguments)
    options.seconds = None
    if options.steps is None:
        options.seconds = options.hours * 3600 if options.hours else options.minutes * 60
    return options


def lock(folder):
    """Lock the folder until the file is closed: two runners would remove each other's states."""
    import fcntl

    try:
        file = open(str(folder / "lock"), "ab")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Problem(f"{folder}: another runner trains here; wait for it to end") from None
    except OSError as error:
        raise Problem(
            f"{folder}: can't be written to ({error.strerror}); make room, or copy it elsewhere"
        ) from None
    return file


def run(options):
    """The command line's options."""
    folder = Path(__file__).resolve().parent
    card = read_card(folder)
    slices = Slices(options.store)
    if slices.size != card["slice_size"]:
        raise Problem(
            f"{options.store}: its slices have {slices.size} px and the graph takes {card['slice_size']}; export again "
            "with --store"
        )
    pairs = Pairs(
        slices, card["positives"], card["max_mm"], card["batch"], card["seed"], negatives=card["negatives"]
    )
    with lock(folder):
        saved = states.load(folder / "state", say)
        if saved:
            check_same_training(saved[1], card, options, slices)
            if saved[1]["finished"]:
                say(
                    f"already finished, {saved[1]['step']} steps: bring this folder back for mri-transfer import-graph"
                )
                return
        tf = tensorflow_for(card)
        graph = Graph(tf, folder, card)
        if saved:
            graph.assign(saved[0])
            say(f"continuing at step {saved[1]['step']}, {saved[1]['seconds'] / 60:.1f} minutes in")
        training = Training(folder, card, graph, pairs, options, saved[1] if saved else None)
        gpus = training.info["machine"]["gpu"]
        say(
            f"{card['method']} of {card['backbone']}, {card['batch']} pairs of {card['size']} px a step, with "
            f"TensorFlow {tf.__version__} on {'the GPU' if gpus else 'the processor: it sees no GPU'}; {len(slices)} "
            f"slices of {training.info['data']['subjects']} subjects"
        )
        training.train()
    info = training.info
    chance = f" (chance is {card['chance']:.3f})" if card["chance"] is not None else ""
    loss = ""
    if None not in (info["first_loss"], info["last_loss"]):  # the budget may end before the first step
        loss = f", loss {info['first_loss']:.3f} → {info['last_loss']:.3f}{chance}"
    say(
        f"{info['step']} steps in {info['seconds'] / 60:.1f} min{loss}; effective rank of "
        f"{len(training.looked_at)} slices' features {info['rank']:.1f}"
        + (": COLLAPSED, all slices look the same to it" if info["rank"] < 2 else "")
    )
    say(f"bring the folder back and make a run of it: mri-transfer import-graph {folder.name} --out RUN")


def main(arguments=None):
    """Run; returns 0 when it finished, 2 for a mistake or a bad file, 130 when interrupted."""
    options = parse(arguments)
    try:
        run(options)
    except Problem as problem:
        say(f"runner.py: {problem}")
        return 2
    except OSError as error:
        say(f"runner.py: {error}; fix that and run the same command again to continue")
        return 2
    except KeyboardInterrupt:
        say("interrupted; run the same command again to continue")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
