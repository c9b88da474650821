"""Which rank of how many processes this is: from options, from launchers, and what makes no sense."""

import pytest

from mri_transfer.errors import UserError
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.devices.membership import Membership, membership_of

SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}
MPI = {"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "2"}


def membership(environment=(), **options):
    config = PretrainConfig(store="store", out="run", **options)
    return membership_of(config, dict(environment))


def test_a_run_is_alone_unless_it_is_told_where_the_others_are():
    assert membership() is None
    assert membership(SLURM) is None  # one of four jobs that have nothing to do with one another
    assert membership(coordinator="node7:9000", processes=1, process=0) is None


def test_options_win_over_launchers():
    assert membership(coordinator="node7:9000", processes=2, process=1) == Membership("node7:9000", 2, 1)
    assert membership(SLURM, coordinator="node7:9000") == Membership("node7:9000", 4, 3)
    assert membership(MPI, coordinator="10.0.0.7:9000") == Membership("10.0.0.7:9000", 3, 2)
    assert membership(SLURM, coordinator="node7:9000", processes=8, process=0) == Membership(
        "node7:9000", 8, 0
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"processes": 2}, "--processes: give --coordinator"),
        ({"process": 0}, "--process: give --coordinator"),
        ({"coordinator": "a:1", "process": 0}, "--processes: is required"),
        ({"coordinator": "a:1", "processes": 2}, "--process: is required"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, "give a number from 0 to 1"),
    ],
)
def test_what_is_missing_or_makes_no_sense_is_named(options, words):
    with pytest.raises(UserError, match=words):
        membership(**options)


@pytest.mark.parametrize(
    "address", ["node7", "node7:", ":9000", "node7:0", "node7:70000", "node7:http", "[::1]:9"]
)
def test_an_address_is_a_host_and_a_port(address, capsys):
    from mri_transfer.cli import build_parser

    with pytest.raises(SystemExit):
        build_parser("pretrain").parse_args(["pretrain", "s", "--out", "r", "--coordinator", address])
    assert "HOST:PORT" in capsys.readouterr().err
