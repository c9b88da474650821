import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mri_transfer.evaluation.numbering import numbered


@given(st.lists(st.sampled_from(["b", "a", "", "é"])))
def test_numbers_are_given_by_first_appearance(values):
    first, numbers = numbered(np.array(values, dtype=str))
    order = list(dict.fromkeys(values))
    assert numbers.tolist() == [order.index(value) for value in values]
    assert [values[place] for place in first] == order
