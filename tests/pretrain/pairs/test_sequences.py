import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_transfer.pretrain.pairs.sequences import SAME_GRID_MM, SAME_PLACE_MM, fields_of_view, partners


def scan(subject, session, sequence, begin, count, thickness, numbers=None, plane="axial"):
    """Rows of a table: slices at a thickness (mm) in a field of view that begins at `begin` mm."""
    numbers = range(count) if numbers is None else numbers
    return [
        (subject, session, sequence, plane, begin + (i + 0.5) * thickness, round((i + 0.5) / count, 5))
        for i in numbers
    ]


def table(*volumes):
    """Columns as `partners` takes them."""
    rows = [(*row, number) for number, rows in enumerate(volumes) for row in rows]
    subject, session, sequence, plane, mm, fraction, volume = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    return {
        "subject": subject, "session": session, "sequence": sequence, "volume": volume,
        "plane": plane, "mm": mm, "fraction": fraction,
    }  # fmt: skip


def partners_of(columns):
    first, others = partners(**columns)
    return [others[first[i] : first[i + 1]].tolist() for i in range(len(first) - 1)]


def test_equal_positions_of_two_sequences_on_one_grid_are_partners():
    columns = table(scan("s", "", "T1", -20, 8, 5.0), scan("s", "", "T2", -20, 8, 5.0))
    assert partners_of(columns) == [[i + 8] for i in range(8)] + [[i] for i in range(8)]


def test_only_another_sequence_of_the_same_subject_session_and_plane_counts():
    first = scan("s", "1", "T1", 0, 6, 5.0)
    for other in (
        scan("s", "1", "T1", 0, 6, 5.0),
        scan("s", "2", "T2", 0, 6, 5.0),
        scan("t", "1", "T2", 0, 6, 5.0),
        scan("s", "1", "T2", 0, 6, 5.0, plane="coronal"),
    ):
        assert not any(partners_of(table(first, other)))


def test_another_field_of_view_is_another_grid_though_positions_cross():
    """Both are centred on 0 mm, and there fractions and positions agree."""
    columns = table(scan("s", "", "T1", -60, 24, 5.0), scan("s", "", "T2", -66, 22, 6.0))
    assert not any(partners_of(columns))
    shifted = table(scan("s", "", "T1", -60, 24, 5.0), scan("s", "", "T2", -59, 24, 5.0))
    assert not any(partners_of(shifted))


def test_all_common_planes_must_agree():
    """Isotropic volumes show all planes: another field of view from left to right is another grid."""

    def two_planes(sequence, left):
        return scan("s", "", sequence, -90, 45, 4.0) + scan(
            "s", "", sequence, left, 40, 4.0, plane="sagittal"
        )

    assert sum(map(bool, partners_of(table(two_planes("T1", -80), two_planes("T2", -80))))) == 170
    assert not any(partners_of(table(two_planes("T1", -80), two_planes("T2", -70))))


def test_slices_thinned_out_differently_are_matched_by_the_nearest_within_reach():
    first = scan("s", "", "T1", 0, 60, 1.0, numbers=range(10, 50, 4))
    second = scan("s", "", "T2", 0, 60, 1.0, numbers=range(11, 40, 4))
    columns = table(first, second)
    pairs = partners_of(columns)
    for i, others in enumerate(pairs):
        distances = np.abs(columns["mm"] - columns["mm"][i])[columns["sequence"] != columns["sequence"][i]]
        assert bool(others) == (distances.min() <= SAME_PLACE_MM)
        for j in others:
            assert abs(columns["mm"][i] - columns["mm"][j]) == distances.min()


def test_pictures_at_no_known_place_have_no_partners():
    pictures = [[("s", "", sequence, "axial", 0.0, 0.5)] for sequence in ("T1", "T2", "T1")]
    assert not any(partners_of(table(*pictures)))
    assert np.isnan(fields_of_view(np.arange(3), np.zeros(3, int), np.zeros(3), np.full(3, 0.5))).all()


def test_three_sequences_give_two_partners_each():
    columns = table(*(scan("s", "", sequence, 0, 5, 5.0) for sequence in ("T1", "T2", "FLAIR")))
    assert partners_of(columns)[2] == [7, 12]


@settings(max_examples=60)
@given(st.data())
def test_equals_a_search_over_all_pairs(data):
    volumes = []
    for _ in range(data.draw(st.integers(2, 6))):
        count = data.draw(st.integers(3, 8))
        numbers = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
        volumes.append(
            scan(
                data.draw(st.sampled_from("st")), data.draw(st.sampled_from(["", "2"])),
                data.draw(st.sampled_from(["T1", "T2", "FLAIR"])), data.draw(st.sampled_from([0.0, 0.2, 3.0])),
                count, data.draw(st.sampled_from([1.5, 3.0])), sorted(numbers),
                data.draw(st.sampled_from(["axial", "coronal"])),
            )
        )  # fmt: skip
    columns = table(*volumes)
    order = np.random.default_rng(data.draw(st.integers(0, 9))).permutation(len(columns["mm"]))
    columns = {name: values[order] for name, values in columns.items()}

    def ends(volume):
        rows = columns["volume"] == volume
        mm, fraction = columns["mm"][rows], columns["fraction"][rows]
        if len(mm) < 2:
            return None
        extent = np.ptp(mm) / np.ptp(fraction)
        return np.array([mm.min() - fraction.min() * extent, mm.min() + (1 - fraction.min()) * extent])

    pairs = partners_of(columns)
    for i in range(len(order)):
        expected = set()
        for volume in set(columns["volume"].tolist()) - {columns["volume"][i]}:
            rows = np.flatnonzero(columns["volume"] == volume)
            j = rows[0]
            alike = all(columns[key][i] == columns[key][j] for key in ("subject", "session", "plane"))
            a, b = ends(columns["volume"][i]), ends(volume)
            if not alike or columns["sequence"][i] == columns["sequence"][j] or a is None or b is None:
                continue
            distances = np.abs(columns["mm"][rows] - columns["mm"][i])
            if np.abs(a - b).max() <= SAME_GRID_MM and distances.min() <= SAME_PLACE_MM:
                expected.add((volume, distances.min()))
        actual = {(columns["volume"][j], abs(columns["mm"][i] - columns["mm"][j])) for j in pairs[i]}
        assert actual == expected
        assert len(pairs[i]) == len(expected)
