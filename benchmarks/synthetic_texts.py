"""Item texts of real-looking lengths: title, tag and description, with the shares of missing ones of PixelRec50K."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Share of missing texts, median number of words and its spread, and most characters, by field.
FIELDS = {"title": (0.0023, 8, 0.5, 685), "description": (0.238, 14, 1.0, 2159)}
TAGS, TAG_MISSING = 108, 0.00006
COUNTERS = (
    "view_number", "comment_number", "thumbup_number", "share_number", "coin_number", "favorite_number",
    "barrage_number",
)  # fmt: skip
WORDS = 20_000
COMMON = (
    "the a to and of in is it you that for on with this my was are be at have not as but your what how from all why "
    "one when new can will first day time video best people who life home world see back made make don't part more "
    "after about good old little year game music love food cat school review cut live full daily real"
).split()
SYLLABLES = (
    "ba ker lo min tra sen vi do pu ling sto ra ge ta mon fi cal ne shi wo dan er is tu ka pre hol jin mu y".split()
)
MARKS = ("", ",", "!", "…", '"', " &")  # after a word now and then


def vocabulary(rng: np.random.Generator) -> pa.Array:
    """Words in order of popularity: common English ones, then some made of syllables; a few bear a mark."""
    made = ["".join(rng.choice(SYLLABLES, int(count))) for count in rng.integers(1, 5, WORDS - len(COMMON))]
    marks = rng.choice(MARKS, WORDS, p=[0.9, 0.04, 0.02, 0.02, 0.01, 0.01])
    return pa.array([word + str(mark) for word, mark in zip([*COMMON, *made], marks, strict=True)])


def sentences(n_items: int, words: pa.Array, median: float, spread: float, rng: np.random.Generator) -> pa.Array:
    """(n_items,) texts of a log-normal number of words, drawn by Zipf's law."""
    counts = np.maximum(1, rng.lognormal(np.log(median), spread, n_items)).astype(np.int64)
    ranks = np.exp(rng.random(counts.sum()) * np.log(len(words))).astype(np.int32) - 1
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pc.binary_join(pa.ListArray.from_arrays(offsets, words.take(pa.array(ranks))), " ")


def texts(n_items: int, seed: int) -> pa.Table:
    """Columns item_id, title, tag, description; a missing text is null."""
    rng = np.random.default_rng(seed)
    words = vocabulary(rng)
    columns = {"item_id": pc.binary_join_element_wise("i", pa.array(np.arange(1, n_items + 1)).cast(pa.string()), "")}
    for field, (missing, median, spread, most) in FIELDS.items():
        cells = pc.utf8_trim(pc.utf8_slice_codeunits(sentences(n_items, words, median, spread, rng), 0, most), " ")
        columns[field] = pc.if_else(pa.array(rng.random(n_items) < missing), None, cells)
    tags = sentences(TAGS, words.slice(len(COMMON), 500), 2, 0.4, rng)
    tag = tags.take(pa.array(rng.integers(0, TAGS, n_items)))
    columns["tag"] = pc.if_else(pa.array(rng.random(n_items) < TAG_MISSING), None, tag)
    return pa.table(columns).select(["item_id", "title", "tag", "description"])


def counters(n_items: int, seed: int) -> list[np.ndarray]:
    """(n_items,) int64 of each of COUNTERS."""
    rng = np.random.default_rng(seed + 1)
    views = rng.lognormal(10, 2, n_items)
    return [(views / 30.0 ** (column > 0) * rng.random(n_items)).astype(np.int64) for column in range(len(COUNTERS))]
