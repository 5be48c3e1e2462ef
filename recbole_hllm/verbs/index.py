"""Builds an index of an export's items, for recommendations without scoring all of them.

usage: recbole-hllm index FOLDER [--kind NAME] [--min_recall NUMBER] [--k NUMBER] [--breadth NUMBER]

  FOLDER                    that recbole-hllm export wrote; an index in it is replaced
  --kind hnsw               hnsw (a graph), ivf (lists) or flat (all, as the exact search)
  --min_recall 0.95         share of the best items that must be found: the least effort of a search that is enough is
                            kept; with less than that at the greatest effort nothing is written
  --k 50                    of how many best items
  --breadth 32              links of each item in a graph (32), or number of lists (four times the square root of items)

  Recommender.from_pretrained("FOLDER", index="hnsw") reads it. It needs the extra faiss.
"""

from recbole_hllm.verbs.options import read_options

_USAGE = "index FOLDER --kind=hnsw --min_recall=0.95"


def main(words: list[str]) -> int:
    """One index."""
    (folder,), options = read_options(words, _USAGE, 1, {"kind": "hnsw", "min_recall": 0.95, "k": 50, "breadth": int})
    from recbole_hllm.serving.index_building import build_index, in_words, write_index
    from recbole_hllm.serving.recommender import Recommender

    read = Recommender.from_pretrained(folder)
    index = build_index(read.served, read.histories, **options)
    assert read.folder is not None
    write_index(index, read.folder, options["min_recall"])
    print(in_words(index))
    return 0
