"""What is taken, what is left out, and what a table changes."""

from __future__ import annotations

import pytest

from mri_transfer.datasets.volumes.find import find_volumes
from mri_transfer.errors import UserError


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names_of(inventory):
    return [source.name for source in inventory.sources]


def test_a_bids_tree(tmp_path):
    root = tmp_path / "ds1"
    touch(
        root,
        "dataset_description.json",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_FLAIR.nii",
        "sub-01/ses-a/anat/sub-01_ses-a_label-L_mask.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_T1w_seg.nii.gz",
        "sub-01/ses-a/func/sub-01_ses-a_bold.nii.gz",
        "sub-01/ses-a/dwi/sub-01_ses-a_dwi.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_epi.nii.gz",
        "derivatives/fmriprep/sub-01/anat/sub-01_T1w.nii.gz",
        ".git/annex/objects/T1.nii",
        "sub-01/ses-a/anat/._sub-01_T1w.nii.gz",
        "participants.tsv",
    )
    inventory = find_volumes([root])
    assert names_of(inventory) == [
        "ds1/sub-01/ses-a/anat/sub-01_ses-a_FLAIR.nii",
        "ds1/sub-02/anat/sub-02_T1w.nii.gz",
    ]
    assert [source.identity.subject for source in inventory.sources] == ["ds1/sub-01", "ds1/sub-02"]
    reasons = {skip.name.split("/", 1)[1]: skip.reason for skip in inventory.skipped}
    assert len(reasons) == 6
    assert "derivatives" in reasons["derivatives/fmriprep/sub-01/anat/sub-01_T1w.nii.gz"]
    assert "mask" in reasons["sub-01/ses-a/anat/sub-01_ses-a_label-L_mask.nii.gz"]
    assert not any(skip.broken for skip in inventory.skipped)
    derivatives = find_volumes([root / "derivatives" / "fmriprep"])  # named by the user, so it is wanted
    assert len(derivatives.sources) == 1
    assert derivatives.sources[0].identity.subject == "ds1/sub-01"


def test_pairs_count_once_and_halves_are_named(tmp_path):
    touch(tmp_path, "a.hdr", "a.img", "b.hdr", "c.img")
    inventory = find_volumes([tmp_path, tmp_path / "a.hdr"])
    assert [[file.name for file in source.files] for source in inventory.sources] == [["a.hdr", "a.img"]]
    assert {skip.path.name for skip in inventory.skipped if skip.broken} == {"b.hdr", "c.img"}
    assert [file.name for file in find_volumes([tmp_path / "a.img"]).sources[0].files] == ["a.hdr", "a.img"]


def test_the_order_does_not_depend_on_the_file_system_and_nothing_is_found_twice(tmp_path):
    touch(tmp_path / "d", "z/1.nii", "a/2.nii.gz", "b.nii", "Ünïcode name.nii", "UPPER.NII.GZ")
    inventory = find_volumes([tmp_path / "d", tmp_path / "d" / "a", tmp_path / "d" / "b.nii"])
    assert names_of(inventory) == [
        "d/UPPER.NII.GZ",
        "d/b.nii",
        "d/Ünïcode name.nii",
        "d/a/2.nii.gz",
        "d/z/1.nii",
    ]


def test_links(tmp_path):
    touch(tmp_path / "d", "real.nii")
    (tmp_path / "d" / "loop").symlink_to(tmp_path / "d", target_is_directory=True)
    (tmp_path / "d" / "annexed_T1.nii.gz").symlink_to("../.git/annex/objects/none")
    inventory = find_volumes([tmp_path / "d"])
    assert names_of(inventory) == ["d/real.nii"]
    assert [(skip.name, skip.broken) for skip in inventory.skipped] == [("d/annexed_T1.nii.gz", True)]


def test_paths_that_lead_nowhere(tmp_path):
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "notes.txt", "only/x_mask.nii")
    for path, reason in (
        ("missing", "no such file or folder"),
        ("empty", "no volumes"),
        ("notes.txt", "not a volume"),
        ("only", "1 left out, the first only/x_mask.nii"),
    ):
        with pytest.raises(UserError, match=reason) as error:
            find_volumes([tmp_path / path])
        assert str(tmp_path / path) in str(error.value)


def test_a_table_overrides_names(tmp_path):
    touch(tmp_path / "d", "a_T1.nii", "b_T2.nii", "c.nii")
    table = tmp_path / "volumes.tsv"
    table.write_text(
        "file\tsubject\tsession\tsequence\tnote\nd/a_T1.nii\tanna\t2\tt1C\tx\nb_T2.nii\tberta\t\t\t\n"
    )
    identities = {
        source.path.name: source.identity for source in find_volumes([tmp_path / "d"], table).sources
    }
    assert (
        identities["a_T1.nii"].subject,
        identities["a_T1.nii"].session,
        identities["a_T1.nii"].sequence,
    ) == (
        "anna",
        "2",
        "T1c",
    )
    assert (identities["b_T2.nii"].subject, identities["b_T2.nii"].sequence) == ("berta", "T2")
    assert identities["c.nii"].subject == "c"


def test_a_row_with_a_folder_is_not_taken_for_a_namesake_elsewhere(tmp_path):
    touch(tmp_path / "d", "anna/1.nii", "berta/1.nii", "berta/2.nii")
    table = tmp_path / "t.csv"
    table.write_text("file,subject\nd/anna/1.nii,A\n2.nii,B\nold/place/1.nii,C\n")
    inventory = find_volumes([tmp_path / "d"], table)
    assert [source.identity.subject for source in inventory.sources] == ["A", "berta/1", "B"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "needs a heading"),
        ("name,subject\na.nii,x\n", "needs a heading"),
        ("file,sequence\na.nii,T7\n", "line 2: sequence 'T7'"),
        ("file,subject\nother.nii,x\n", "none of its 1 rows"),
    ],
)
def test_wrong_tables(tmp_path, text, reason):
    touch(tmp_path / "d", "a.nii")
    table = tmp_path / "t.csv"
    table.write_text(text)
    with pytest.raises(UserError, match=reason):
        find_volumes([tmp_path / "d"], table)


OASIS = [
    "OAS1_0001_MR1/RAW/OAS1_0001_MR1_mpr-1_anon",
    "OAS1_0001_MR1/RAW/OAS1_0001_MR1_mpr-2_anon",
    "OAS1_0001_MR1/PROCESSED/MPRAGE/SUBJ_111/OAS1_0001_MR1_mpr_n4_anon_sbj_111",
    "OAS1_0001_MR1/PROCESSED/MPRAGE/T88_111/OAS1_0001_MR1_mpr_n4_anon_111_t88_gfc",
    "OAS1_0001_MR1/PROCESSED/MPRAGE/T88_111/OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc",
    "OAS1_0001_MR1/FSL_SEG/OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc_fseg",
    "OAS1_0002_MR1/RAW/OAS1_0002_MR1_mpr-3_anon",
    "OAS1_0002_MR1/RAW/OAS1_0002_MR1_mpr-4_anon",
    "OAS1_0002_MR2/PROCESSED/MPRAGE/T88_111/OAS1_0002_MR2_mpr_n3_anon_111_t88_gfc",
]


def test_oasis_a_session_counts_once_by_its_best_state(tmp_path):
    touch(tmp_path / "disc1", *(f"{name}.{end}" for name in OASIS for end in ("hdr", "img")))
    inventory = find_volumes([tmp_path / "disc1"])
    assert [
        (source.identity.subject, source.identity.session, source.identity.sequence)
        for source in inventory.sources
    ] == [
        ("OAS1_0001", "MR1", "T1"),
        ("OAS1_0002", "MR1", "T1"),
        ("OAS1_0002", "MR2", "T1"),
    ]
    assert names_of(inventory) == [f"disc1/{OASIS[at]}.img" for at in (2, 6, 8)]
    reasons = {
        skip.name.removesuffix(".img"): skip.reason
        for skip in inventory.skipped
        if skip.name.endswith(".img")
    }
    for at in (0, 1, 3, 4):
        assert reasons[f"disc1/{OASIS[at]}"] == f"the same scan as disc1/{OASIS[2]}.img, in another state"
    assert "label or mask" in reasons[f"disc1/{OASIS[5]}"]
    assert not any(skip.broken for skip in inventory.skipped)


def test_freesurfer_a_subject_counts_once(tmp_path):
    touch(
        tmp_path / "subjects" / "bert" / "mri",
        *(
            "orig.mgz",
            "T1.mgz",
            "nu.mgz",
            "brain.mgz",
            "orig/001.mgz",
            "aseg.mgz",
            "aparc+aseg.mgz",
            "ribbon.mgz",
        ),
    )
    inventory = find_volumes([tmp_path / "subjects"])
    assert names_of(inventory) == ["subjects/bert/mri/orig.mgz"]
    assert inventory.sources[0].identity.subject == "bert"
    assert sum("in another state" in skip.reason for skip in inventory.skipped) == 4


def test_kinds_that_are_asked_for(tmp_path):
    touch(
        tmp_path / "ds",
        "dataset_description.json",
        "sub-1/anat/sub-1_T1w.nii",
        "sub-1/dwi/sub-1_dwi.nii",
        "sub-1/func/sub-1_bold.nii",
        "derivatives/x/sub-1/anat/sub-1_desc-preproc_T1w.nii",
    )
    assert names_of(find_volumes([tmp_path / "ds"])) == ["ds/sub-1/anat/sub-1_T1w.nii"]
    for include, expected in (("dwi", "dwi/sub-1_dwi.nii"), ("derivatives", "sub-1_desc-preproc_T1w.nii")):
        names = names_of(find_volumes([tmp_path / "ds"], include=(include,)))
        assert len(names) == 2
        assert any(name.endswith(expected) for name in names)


def test_pairs_of_which_one_half_is_compressed(tmp_path):
    touch(tmp_path / "d", "a.hdr.gz", "a.img.gz", "b.hdr", "b.img.gz", "C.HDR", "C.IMG", "e.img.gz")
    inventory = find_volumes([tmp_path / "d"])
    assert [[file.name for file in source.files] for source in inventory.sources] == [
        ["C.HDR", "C.IMG"],
        ["a.hdr.gz", "a.img.gz"],
        ["b.hdr", "b.img.gz"],
    ]
    assert [(skip.name, skip.reason) for skip in inventory.skipped] == [
        ("d/e.img.gz", "its other half, e.hdr, is missing")
    ]


def test_a_folder_without_volumes_beside_one_with_some_is_named(tmp_path):
    touch(tmp_path, "scans/a.nii", "masks/a_mask.nii", "pictures/a.png", "nothing/a.txt")
    folders = [tmp_path / name for name in ("scans", "masks", "pictures", "nothing")]
    inventory = find_volumes(folders)
    assert names_of(inventory) == ["scans/a.nii"]
    pictures, nothing = inventory.remarks  # the mask is among what was left out, with its reason
    assert pictures.startswith(f"{tmp_path / 'pictures'}: no volumes")
    assert "it holds pictures" in pictures
    assert nothing.startswith(f"{tmp_path / 'nothing'}: no volumes")
    assert "it holds pictures" not in nothing
    assert find_volumes([tmp_path, tmp_path / "scans"]).remarks == []  # it was met before
