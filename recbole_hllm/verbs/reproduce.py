"""Runs a finished run again from what its folder says, and sets old and new numbers side by side.

usage: recbole-hllm reproduce NAME [--run_dir=PATH] [--key=value ...]

  NAME                      folder of a run, of a table's row FOLDER/ROW; or a name below benchmarks/results
  --run_dir=PATH            folder of the new run; default runs/DATASET/MODEL-TIME
  --data_path=PATH          keys of the machine: data_path, cache_dir, use_gpu and the like; no others
"""

from recbole_hllm.errors import ConfigError
from recbole_hllm.verbs.line import CommandLine


def main(words: list[str]) -> int:
    """One run, again."""
    words = list(words)
    if not words or words[0].startswith("-"):
        raise ConfigError("reproduce: name a run: recbole-hllm reproduce FOLDER")
    name, line = words.pop(0), CommandLine(words)
    if line.files:
        raise ConfigError("reproduce: a run's folder has its keys; --config_files would make another run")
    line.refuse_others("reproduce")
    from recbole_hllm.runs.reproduce import REPORT, reproduce, to_console

    result = reproduce(name, line.run_dir, line.own_arguments, line.model)
    print(f"\n{to_console(result)}\n{result['of']} again in {result['run_dir']}: {REPORT}")
    return 0
