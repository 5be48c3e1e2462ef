"""Estimates what a training costs, without training: parameters, tokens, FLOPs, memory, time.

The time comes from a few steps on this machine, where the model fits into its memory.

usage: recbole-hllm plan --model=NAME[,NAME...] --dataset=NAME [--key=value ...]

  --model=HLLM,SASRec       the keys are those of run; each model is estimated alone
  --processes=8             also the memory of each of so many processes, by strategy

Without a verb, --plan asks for it.
"""

from recbole_hllm.errors import ConfigError
from recbole_hllm.verbs.line import CommandLine


def main(words: list[str]) -> int:
    """One estimate of each model, printed."""
    line = CommandLine(words)
    if line.given.get("training_stage") is not None:
        raise ConfigError("--plan estimates one run: leave training_stage out and give the keys of one stage")
    for several in ("trials", "seeds"):
        if line.given.get(several) is not None:
            raise ConfigError(f"--plan estimates one run of each model: leave {several} out and multiply by them")
    line.refuse_keys_of_others()
    processes = _number(line.arguments.pop("processes", "1"))
    from recbole_hllm.runs.plan import plan, plan_text

    for model in line.models or (None,):
        print(plan_text(plan(model, None, line.files, arguments=line.own_arguments, processes=processes)))
    return 0


def _number(value: str) -> int:
    if not value.isdecimal() or int(value) == 0:
        raise ConfigError(f"--processes: '{value}' is no number of processes")
    return int(value)
