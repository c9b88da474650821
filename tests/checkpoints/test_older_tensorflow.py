import numpy as np
import pytest

from mri_transfer.checkpoints import older_tensorflow
from mri_transfer.checkpoints.older_tensorflow import TARGETS, known_operations, make_loadable
from mri_transfer.errors import UserError
from mri_transfer.machine import device

device.prepare()
tf = pytest.importorskip("tensorflow")


@pytest.fixture
def saved(tmp_path):
    """A small model with a variable, a gradient and random numbers, saved by this TensorFlow."""
    module = tf.Module()
    module.state = [tf.Variable(np.full((3, 2), 0.5, "float32")), tf.Variable(np.array([1, 2], "uint32"))]

    @tf.function(input_signature=(tf.TensorSpec((None, 3)),))
    def step(x):
        weight, seed = module.state
        with tf.GradientTape() as tape:
            noise = tf.random.stateless_uniform((3, 2), tf.cast(seed, "int32"))
            loss = tf.reduce_sum(tf.matmul(x, weight * noise) ** 2)
        weight.assign_sub(0.01 * tape.gradient(loss, weight))
        seed.assign_add(tf.ones_like(seed))
        return loss

    module.step = step
    tf.saved_model.save(module, str(tmp_path / "model"))
    return tmp_path / "model"


def operations(folder):
    """(operation, attributes) of all nodes, by the graph they are in."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    for meta in saved.meta_graphs:
        graphs = [meta.graph_def.node, *(function.node_def for function in meta.graph_def.library.function)]
        for graph in graphs:
            names = {node.name for node in graph}
            for node in graph:
                yield node.op, {key for key in node.attr if not key.startswith("_")}
                controls = {name[1:] for name in node.input if name.startswith("^")}
                assert controls <= names  # none waits for what was removed
        for function in meta.graph_def.library.function:
            assert set(function.control_ret.values()) <= {node.name for node in function.node_def}
            assert set(function.signature.control_output) == set(function.control_ret)


def run(folder):
    module = tf.saved_model.load(str(folder))
    x = tf.constant(np.arange(6.0, dtype="float32").reshape(2, 3))
    return [float(module.step(x)) for _ in range(4)]


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_left_is_known_to_the_older_one_and_gives_the_same_numbers(saved, target):
    version = TARGETS[target]
    table, before = known_operations(version), run(saved)
    new = {name for name, attributes in operations(saved) if not attributes <= table.get(name, frozenset())}
    assert new  # else there is nothing to do and this tests nothing
    make_loadable(saved, version)
    for name, attributes in operations(saved):
        assert attributes <= table[name], name
    assert run(saved) == before
    assert not (saved / "fingerprint.pb").exists()


def test_what_the_older_one_knows():
    old, new = known_operations("2.6"), known_operations("2.12")
    assert "DisableCopyOnRead" not in old
    assert old["MatMul"] == {"T", "transpose_a", "transpose_b"}
    assert len(new) > len(known_operations("2.7")) > len(old) > 1000


def test_an_operation_that_it_does_not_know_is_refused_and_nothing_is_written(saved, monkeypatch):
    table = {name: attributes for name, attributes in known_operations("2.7").items() if name != "MatMul"}
    monkeypatch.setattr(older_tensorflow, "known_operations", lambda version: table)
    content = (saved / "saved_model.pb").read_bytes()
    with pytest.raises(UserError, match=r"--for tf2\.7.*MatMul"):
        make_loadable(saved, "2.7")
    assert (saved / "saved_model.pb").read_bytes() == content


def test_an_attribute_that_changes_numbers_is_refused(saved, monkeypatch):
    table = dict(known_operations("2.7"))
    table["MatMul"] = table["MatMul"] - {"transpose_a"}  # the gradient needs it
    monkeypatch.setattr(older_tensorflow, "known_operations", lambda version: table)
    with pytest.raises(UserError, match="MatMul's transpose_a"):
        make_loadable(saved, "2.7")
