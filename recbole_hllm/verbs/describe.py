"""Shows what a data set is like before anything is trained on it, in tables and as a page with plots.

Sequence lengths, popularity, times, ties, repeated pairs, texts, cold targets, leaks, and what k-core filters would
leave; what is unusual is said first, with the key that helps.

usage: recbole-hllm describe DATASET [--key=value ...] [--to FOLDER]

  DATASET                   folder and file name under data_path; --dataset=NAME is the same
  --to FOLDER               gets describe.json and describe.html; default runs/DATASET/describe-TIME
  --model=HLLM              whose keys, rows and texts are meant; HLLM where none is named
  --key=value               those of run: filters and split are those of a run with these keys
"""

from recbole_hllm.errors import ConfigError
from recbole_hllm.verbs.line import CommandLine


def main(words: list[str]) -> int:
    """One description."""
    words = list(words)
    dataset = words.pop(0) if words and not words[0].startswith("-") else None
    line = CommandLine(words)
    folder = line.arguments.pop("to", None)
    if folder == "True":
        raise ConfigError("--to needs a folder: --to FOLDER")
    if line.run_dir:
        raise ConfigError("--run_dir is the folder of a run; --to names that of a description")
    if dataset and line.arguments.get("dataset", dataset) != dataset:
        raise ConfigError(f"describe: the data set is given twice, {dataset} and --dataset={line.arguments['dataset']}")
    line.refuse_others("describe")
    line.refuse_keys_of_others()
    from recbole_hllm.description.describe import describe
    from recbole_hllm.description.sections import to_console

    result = describe(line.model, dataset, line.files, folder=folder, arguments=line.own_arguments)
    print(to_console(result))
    print(f"all of it in {result['folder']}: describe.json, and describe.html with plots")
    return 0
