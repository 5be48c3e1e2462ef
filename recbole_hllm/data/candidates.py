"""Fixed candidates for sampled evaluation (``uni100``, ``pop100``): drawn once, the same for every model."""

import numpy as np

from recbole_hllm.errors import DataError

_BLOCK_ROWS = 1024
_BLOCK_BYTES = 1 << 26  # of the (rows, items) table of what a row may no longer get
_COLUMNS = 32  # draws per row made at a time
_PATIENCE = 4  # draws per item wanted, before a row's rest is drawn exactly


def draw_candidates(
    rows_user: np.ndarray,
    own_offsets: np.ndarray,
    own_items: np.ndarray,
    n_items: int,
    number: int,
    seed: int,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Draws the negatives that each evaluation row's target is ranked against.

    A row's items are drawn one after the other, without replacement, never the padding item 0 and never an
    item of the user's own. They depend on the seed, the row's position and its user's items (and on the
    catalogue and weights), neither on the other rows nor on NumPy's global random state.

    Args:
        rows_user: (R,) user of each row.
        own_offsets: (U + 1,) user ``u`` owns ``own_items[own_offsets[u]:own_offsets[u + 1]]``.
        own_items: flat item ids of every user's whole sequence; repetitions are fine.
        n_items: size of the catalogue, padding included.
        number: items per row.
        seed: non-negative.
        weights: (n_items,) an item's chance is proportional to its weight, such as its number of training
            interactions; weight 0 is never drawn. None: all alike.

    Returns:
        (R, number) int64 item ids, in the order they were drawn.

    Raises:
        DataError: a user has fewer than ``number`` items left.
    """
    rows_user = np.asarray(rows_user, dtype=np.int64)
    allowed = np.ones(n_items, dtype=bool) if weights is None else np.asarray(weights) > 0
    allowed[0] = False
    weights = allowed.astype(np.float64) if weights is None else np.where(allowed, weights, 0.0)
    _check_enough_left(rows_user, own_offsets, own_items, allowed, number)

    candidates = np.empty((len(rows_user), number), dtype=np.int64)
    block_rows = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // n_items))
    taken = np.zeros((block_rows, n_items), dtype=bool)
    for block, start in enumerate(range(0, len(rows_user), block_rows)):
        chosen = candidates[start : start + block_rows]
        own = _own_pairs(rows_user[start : start + block_rows], own_offsets, own_items)
        taken[own] = True
        filled = _draw_block(chosen, taken, weights, np.random.default_rng([seed, 0, block]))
        for row in np.flatnonzero(filled < number):
            rng = np.random.default_rng([seed, 1, start + int(row)])
            chosen[row, filled[row] :] = _draw_rest(~taken[row], weights, number - filled[row], rng)
        taken[own] = False
        taken[np.arange(len(chosen))[:, None], chosen] = False
    return candidates


def _draw_block(
    chosen: np.ndarray, taken: np.ndarray, weights: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Rejection sampling, one draw per row at a time: a draw already taken by its row is thrown away.

    Every round draws for a full block, used or not, so that a row's draws do not depend on other rows.

    Args:
        chosen: (rows, number), filled in place from the left.
        taken: (at least rows, n_items) bool, updated in place.
        weights: (n_items,) 0 where an item is never drawn.

    Returns:
        (rows,) how many were found; rarely fewer than ``number``, where few items (or little weight) remain.
    """
    n_rows, number = chosen.shape
    cumulated = np.cumsum(weights)
    cumulated /= max(cumulated[-1], np.finfo(np.float64).tiny)
    filled = np.zeros(n_rows, dtype=np.int64)
    for _ in range(0, _PATIENCE * number + _COLUMNS, _COLUMNS):
        draws = np.searchsorted(cumulated, rng.random((_COLUMNS, len(taken)))[:, :n_rows], side="right")
        for items in draws:
            rows = np.flatnonzero(filled < number)
            if not len(rows):
                return filled
            rows = rows[~taken[rows, items[rows]]]
            chosen[rows, filled[rows]] = items[rows]
            taken[rows, items[rows]] = True
            filled[rows] += 1
    return filled


def _draw_rest(
    free: np.ndarray, weights: np.ndarray, number: int, rng: np.random.Generator
) -> np.ndarray:
    """Exact draws of the items still missing, which continue the rejection sampling in distribution."""
    left = np.flatnonzero(free & (weights > 0))
    chances = weights[left] / weights[left].sum()
    return rng.choice(left, size=number, replace=False, p=chances)


def _own_pairs(
    users: np.ndarray, own_offsets: np.ndarray, own_items: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(row, item) of everything the users of these rows own, as two flat arrays."""
    starts, lengths = own_offsets[users], own_offsets[users + 1] - own_offsets[users]
    rows = np.repeat(np.arange(len(users)), lengths)
    first_of_row = np.cumsum(lengths) - lengths
    within_row = np.arange(len(rows)) - first_of_row[rows]
    return rows, own_items[starts[rows] + within_row]


def _check_enough_left(
    rows_user: np.ndarray, own_offsets: np.ndarray, own_items: np.ndarray, allowed: np.ndarray, number: int
) -> None:
    """Refuses at once, naming the user with the fewest items left, so that one correction is enough."""
    n_allowed = int(allowed.sum())
    lengths = np.diff(own_offsets)
    users = np.unique(rows_user)
    left = {}
    for user in users[n_allowed - lengths[users] < number]:
        own = np.unique(own_items[own_offsets[user] : own_offsets[user + 1]])
        left[int(user)] = n_allowed - int(allowed[own].sum())
    worst = min(left, key=lambda user: left[user], default=None)
    if worst is None or left[worst] >= number:
        return
    fewer = f"at most {left[worst]} candidates (such as uni{left[worst]}) or " if left[worst] else ""
    raise DataError(
        f"eval_args.mode asks for {number} sampled candidates, but user {worst} (internal id) has only "
        f"{left[worst]} items left to draw from: {n_allowed} can be drawn, and the user's own are left out. "
        f"Choose {fewer}'full'"
    )
