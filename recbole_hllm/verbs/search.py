"""Trains each model with several combinations of values; the best on validation is its row of the table.

usage: recbole-hllm search --trials=N --model=NAME[,NAME...] --dataset=NAME --NAME.search=SPACE [--key=value ...]

  --trials=4                runs of each model; the best on validation is its row
  --SASRec.search="{'learning_rate': [0.001, 0.0003]}"    keys and the values to draw from, of each model
  --run_dir=PATH            folder of the search
  --resume --run_dir=PATH   continue a search; finished trials stay, and there may be more trials than before

Without a verb, --trials asks for it.
"""

from recbole_hllm.verbs.line import CommandLine


def main(words: list[str]) -> int:
    """One search."""
    line = CommandLine(words)
    line.refuse_others("search", "compare")
    from recbole_hllm.tables.search import search

    result = search(line.models, None, line.files, run_dir=line.run_dir, arguments=line.own_arguments)
    return 1 if result["failed"] else 0
