"""Evaluates a finished run again, with other keys if wanted.

Its folder gets an evaluation-1.json, then evaluation-2.json, and so on; nothing is overwritten.

usage: recbole-hllm evaluate --run_dir=PATH [--key=value ...]

  --run_dir=PATH            folder of the run; of a table's row PATH/MODEL
  --topk="[10,20]"          metrics, topk, mask_history, eval_args and the like may be others than the run's

Without a verb, --evaluate_only asks for it.
"""

from recbole_hllm.verbs.line import CommandLine


def main(words: list[str]) -> int:
    """One more evaluation."""
    line = CommandLine(words)
    line.refuse_others("evaluate")
    line.refuse_keys_of_others()
    from recbole_hllm.runs.run import run

    arguments = {**line.own_arguments, "evaluate_only": "True"}
    run(line.model, config_file_list=line.files, run_dir=line.run_dir, arguments=arguments)
    return 0
