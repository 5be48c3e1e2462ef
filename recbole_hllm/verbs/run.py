"""Trains one model, evaluates its best weights and keeps everything in one folder.

usage: recbole-hllm run --model=NAME --dataset=NAME [--key=value ...]

  --model=HLLM              one model; --help with it lists its keys
  --dataset=NAME            folder and file name under data_path; ml-100k comes with RecBole
  --config_files="A B"      YAML property files, RecBole's style; later ones win; --config_file is the same
  --run_dir=PATH            folder of the run; default runs/DATASET/MODEL-TIME
  --resume --run_dir=PATH   continue an unfinished run from its last checkpoint, with its own model, dataset and keys

Without a verb, one model is run, too. `recbole-hllm help` lists the other verbs.
"""

from recbole_hllm.verbs.line import CommandLine


def main(words: list[str]) -> int:
    """One run."""
    line = CommandLine(words)
    line.refuse_others("run")
    line.refuse_keys_of_others()
    from recbole_hllm.runs.run import run

    run(line.model, config_file_list=line.files, run_dir=line.run_dir, arguments=line.own_arguments)
    return 0
