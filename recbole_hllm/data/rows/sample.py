"""A sample of the users to evaluate, for data with more of them than an evaluation has time for."""

import numpy as np

# Apart from other draws with the run's seed: who is trained on (`train_user_fraction`), and candidates.
_STREAM = 2


def sampled(users: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Which entries belong to a sample of so many different users.

    Each user has a number drawn at random, which depends on the seed and the user's id alone; the sample are the users
    with the smallest ones. So a larger sample includes the smaller, and validation and test share all the users that
    they can.

    Args:
        users: (P,) internal ids, with repetitions.
        number: size of the sample.
        seed: non-negative.

    Returns:
        (P,) bool; all of them where there are not more users.
    """
    there = np.flatnonzero(np.bincount(users))
    if len(there) <= number:
        return np.ones(len(users), dtype=bool)
    draws = np.random.default_rng([seed, _STREAM]).random(int(there[-1]) + 1)[there]
    kept = np.zeros(int(there[-1]) + 1, dtype=bool)
    kept[there[np.argpartition(draws, number - 1)[:number]]] = True
    return kept[users]
