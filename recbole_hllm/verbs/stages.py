"""Trains one model in stages, one after the other in one folder.

usage: recbole-hllm stages --training_stage=[1,2,3] --model=NAME --dataset=NAME [--key=value ...]

  --training_stage=[1,2,3]  stages of HLLM's schedule: both LLMs, the User LLM on stored vectors, vectors written
                            0 before them: the User LLM on stored vectors of the Item LLM as it is
  --stage2.key=value        a key for one stage
  --run_dir=PATH            folder of the schedule; with it, training_stage may add a stage later
  --resume --run_dir=PATH   continue an unfinished schedule

Without a verb, --training_stage asks for it.
"""

from recbole_hllm.verbs.line import CommandLine


def main(words: list[str]) -> int:
    """One schedule."""
    line = CommandLine(words)
    line.refuse_others("stages", "compare")
    line.refuse_keys_of_others()
    from recbole_hllm.runs.stages import run_stages

    run_stages(",".join(line.models), None, line.files, run_dir=line.run_dir, arguments=line.own_arguments)
    return 0
