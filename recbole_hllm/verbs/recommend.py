"""Recommends after every history of a file, with an export.

usage: recbole-hllm recommend FOLDER --in FILE --out FILE [--k NUMBER] [--unknown error|skip] [--index NAME]

  FOLDER                    that recbole-hllm export wrote
  --in histories.jsonl      a line for each history, or .parquet with a row for each:
                            {"user": "7", "items": ["12", "50"], "k": 20}
                            id, user, items, texts, times, at, k, exclude, among and filter_seen may be given
  --out recs.jsonl          a line for each history, or .parquet with user_id, item_id, score and rank; a new file
  --k 10                    of histories that have none of their own
  --unknown error           ids that are not in the catalogue end the program; skip leaves them out and counts them
  --index exact             what finds the best items: exact, flat, ivf or hnsw
  --batch 256               histories that are read together
  --device cpu              torch's name of where they are

  After it was killed, the same command goes on where it was.
"""

from recbole_hllm.errors import ConfigError
from recbole_hllm.verbs.options import read_options

_USAGE = "recommend FOLDER --in=histories.jsonl --out=recs.jsonl"


def main(words: list[str]) -> int:
    """One file of recommendations, and what was counted."""
    defaults = {"in": str, "out": str, "k": 10, "unknown": "error", "index": "exact", "batch": 256, "device": "cpu"}
    (folder,), options = read_options(words, _USAGE, 1, defaults)
    source, target = options.pop("in"), options.pop("out")
    if source is None or target is None:
        raise ConfigError(f"recommend: name a file to read and one to write: recbole-hllm {_USAGE}")
    from recbole_hllm.serving.batch import recommend_file

    print(recommend_file(folder, source, target, **options).in_words())
    return 0
