from types import SimpleNamespace

import numpy as np
import pytest

from recbole_hllm.data.texts.states import cached_token_states

CATALOGUE = SimpleNamespace(
    tokens=np.array([4, 5, 6, 4, 9], np.int32), offsets=np.array([0, 0, 2, 2, 5]), n_items=4
)


def encode(ids):
    """States that are the token and ten times it; counts its calls."""
    encode.calls += 1
    bounds = CATALOGUE.offsets
    tokens = np.concatenate([CATALOGUE.tokens[bounds[i] : bounds[i + 1]] for i in ids])
    return np.stack([tokens, 10.0 * tokens], axis=1).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_states_stand_in_the_places_of_the_tokens(tmp_path, dtype):
    encode.calls = 0
    for cache, calls in ((None, 1), (tmp_path, 2), (tmp_path, 2)):  # the last one is read
        states = cached_token_states(encode, CATALOGUE, width=2, settings={"weights": "a"}, cache=cache, dtype=dtype)
        assert states.dtype == dtype and encode.calls == calls
        assert states.tolist() == [[token, 10 * token] for token in CATALOGUE.tokens.tolist()]
    cached_token_states(encode, CATALOGUE, width=2, settings={"weights": "b"}, cache=tmp_path, dtype=dtype)
    assert encode.calls == 3


def test_large_numbers_stay_finite_in_float16():
    states = cached_token_states(
        lambda ids: np.full((5, 1), 1e6), CATALOGUE, width=1, settings={}, cache=None, dtype=np.float16
    )
    assert np.isfinite(states).all() and states.max() > 65_000
