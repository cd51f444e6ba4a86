import torch
from hypothesis import given
from hypothesis import strategies as st

from m2c.retrieval.top_k import top_k


# Few different values, so that most rows hold ties.
SCORES = st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0]), min_size=9, max_size=9), min_size=1, max_size=4)


@given(SCORES, st.integers(1, 9))
def test_top_k_is_a_stable_sort(rows, k):
    expected = [sorted(range(9), key=lambda column: -row[column])[:k] for row in rows]
    assert top_k(torch.tensor(rows), k).tolist() == expected
