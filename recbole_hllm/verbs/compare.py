"""Trains several models under one protocol, each in a process of its own; one table.

usage: recbole-hllm compare --model=NAME[,NAME...] --dataset=NAME [--key=value ...]

  --model=HLLM,SASRec       rows of the table; models without training are added (sanity_rows)
  --model=HLLM,HLLM@small   a variant is a row with keys of its own, --HLLM@small.key=value
  --Model.key=value         a key for one of the models, such as --SASRec.n_layers=4
  --seeds="[1,2,3]"         a run of each row with each seed; the table shows mean and standard deviation
  --compare_to=SASRec       tests of the other rows against this one, user by user
  --run_dir=PATH            folder of the table, with a run folder PATH/MODEL for each row
  --resume --run_dir=PATH   continue an unfinished table, or help a process that is making it

Without a verb, several models, or seeds, make a table, too.
"""

from recbole_hllm.verbs.line import CommandLine


def main(words: list[str]) -> int:
    """One table."""
    line = CommandLine(words)
    line.refuse_others("compare")
    from recbole_hllm.tables.side_by_side import compare

    result = compare(line.models, None, line.files, run_dir=line.run_dir, arguments=line.own_arguments)
    return 1 if result["failed"] else 0
