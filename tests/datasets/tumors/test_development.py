"""A fixed fifth of the groups: whole groups, the same everywhere, whatever else is in the folder."""

from types import SimpleNamespace

import numpy as np

from mri_transfer.datasets.tumors.development import SHARE, development_images, is_development


def tumors(paths, kept, groups, persons=None):
    files = [SimpleNamespace(path=path) for path in paths]
    persons = persons or [""] * len(groups)
    known = SimpleNamespace(sources=["figshare" if person else "" for person in persons], persons=persons)
    return SimpleNamespace(files=files, image_of=np.array(kept), groups=np.array(groups), known=known)


def test_the_share_is_a_fifth():
    development = [is_development(f"Training/glioma_tumor/gg ({i}).jpg") for i in range(20_000)]
    assert abs(np.mean(development) - SHARE) < 0.01


def test_groups_are_chosen_whole_and_by_their_first_path():
    paths = [f"Training/a/{i:03d}.jpg" for i in range(200)]
    groups = np.arange(200) // 4
    development = development_images(tumors(paths, range(200), groups))
    assert 0 < development.sum() < 200
    for group in range(50):
        members = development[groups == group]
        assert members.all() == members.any() == is_development(paths[4 * group])


def test_neither_the_order_nor_the_numbers_of_groups_matter():
    rng = np.random.default_rng(0)
    paths = [f"Training/a/{i:03d}.jpg" for i in range(60)]
    groups = rng.integers(0, 20, 60)
    groups = np.unique(groups, return_inverse=True)[1]
    development = development_images(tumors(paths, range(60), groups))
    order = rng.permutation(60)
    renamed = rng.permutation(groups.max() + 1)[groups]
    shuffled = development_images(tumors([paths[i] for i in order], range(60), renamed[order]))
    assert np.array_equal(shuffled, development[order])


def test_copies_count_among_the_paths_of_a_group():
    """A copy in another folder may come first in the alphabet."""
    names = [f"a{i}.jpg" for i in range(100)]
    name = next(name for name in names if is_development(name))
    other = next(f"b{i}.jpg" for i in range(100) if not is_development(f"b{i}.jpg"))
    assert development_images(tumors([other, name], [0, 0], [0])).tolist() == [True]
    assert development_images(tumors([other], [0], [0])).tolist() == [False]


def test_known_persons_are_drawn_by_who_they_are():
    """Whatever their files are called."""
    persons = [f"P{number}" for number in range(100)]
    for prefix in ("Training/a", "renamed/z"):
        paths = [f"{prefix}/{number}.jpg" for number in range(100)]
        development = development_images(tumors(paths, range(100), range(100), persons))
        assert development.tolist() == [is_development(f"figshare/{person}") for person in persons]
