"""Writes what recommends of a finished run, for use without RecBole and without data, and to train on from.

usage: recbole-hllm export RUN_DIR FOLDER [--histories] [--dtype NAME] [--vectors FORM]

  RUN_DIR                   of a finished run of a model whose scores are products of vectors
  FOLDER                    of the export: a new or empty one
  --histories               with the history of every user, so that users can be asked for by their id
  --dtype float32           of the vectors of items: float32, bfloat16 or int8
  --vectors parquet         with the vectors of items and users for other programs, as npy or parquet, in FOLDER/vectors

  from recbole_hllm.serving import Recommender
  Recommender.from_pretrained("FOLDER").recommend(items=["1", "50"], k=10)
"""

from recbole_hllm.errors import ConfigError, did_you_mean
from recbole_hllm.verbs.line import parse_arguments

_OPTIONS = ("histories", "dtype", "vectors")


def main(words: list[str]) -> int:
    """One export."""
    words = list(words)
    if len(words) < 2 or any(word.startswith("-") for word in words[:2]):
        raise ConfigError("export: name a run and a new folder: recbole-hllm export RUN_DIR FOLDER")
    run_dir, folder, given = words.pop(0), words.pop(0), parse_arguments(words)
    for name in given:
        if name not in _OPTIONS:
            raise ConfigError(f"export: there is no --{name}{did_you_mean(name, _OPTIONS)}")
    from recbole_hllm.runs.export import export
    from recbole_hllm.runs.run import load_run

    options = {name: given[name] for name in ("dtype", "vectors") if name in given}
    print(export(load_run(run_dir), folder, histories=given.get("histories") == "True", **options))
    return 0
