"""Which options go with which format, and what each hands on; the formats have their tests with their parts."""

import dataclasses
from pathlib import Path

import pytest

from mri_transfer.export import FORMATS, GRAPH, TARGETS, ExportConfig, export
from mri_transfer.pretrain.config import PretrainConfig


def test_the_names_are_those_of_the_parts():
    from mri_transfer.checkpoints import older_tensorflow
    from mri_transfer.finetune.export import conversion as exports

    assert (GRAPH, *exports.FORMATS) == FORMATS
    assert tuple(older_tensorflow.TARGETS) == TARGETS


def test_a_run_is_exported_as_its_format_is_told(monkeypatch, tmp_path):
    from mri_transfer.finetune.export import conversion as exports

    call = {}
    monkeypatch.setattr(
        exports, "export_run", lambda run, out, **options: call.update(options, run=run) or {}
    )
    export(ExportConfig(run=tmp_path, out=tmp_path, format="litert", int8=True, images=(tmp_path,)))
    assert call == {"run": tmp_path, "format": "litert", "int8": True, "images": (tmp_path,)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--format", "onnx"), ("RUN",)),
        (("RUN", "--format", "onnx", "--for", "tf2.7"), ("--for", GRAPH)),
        (("RUN", "--format", "litert", "--learning-rate", 0.1), ("--learning-rate", GRAPH)),
        (("--format", GRAPH, "--for", "tf2.7", "--size", 32, "--int8"), ("--int8",)),
        (("--format", GRAPH, "--for", "tf2.7", "--size", 32, "--images", "x"), ("--images",)),
    ],
)
def test_options_of_another_format_are_refused(refuses, tmp_path, arguments, words):
    refuses("export", *arguments, "--out", tmp_path / "out", words=words)


def test_options_of_pretraining_are_its_own():
    """With the same types and checks, so that nothing is accepted here that is refused there."""
    theirs = {field.name: field for field in dataclasses.fields(PretrainConfig)}
    shared = [
        field for field in dataclasses.fields(ExportConfig) if field.name in theirs and field.name != "out"
    ]
    assert len(shared) > 12
    for field in shared:
        if field.name not in ("store", "out"):
            for key in ("choices", "parse", "repeat", "metavar"):
                assert field.metadata[key] == theirs[field.name].metadata[key], field.name
    options = ExportConfig(format=GRAPH, out=Path(), batch=3, view=("jpeg=0",)).pretrain_options
    assert options == {"batch": 3, "view": ("jpeg=0",)}
