"""Writes what recommends of a finished run, for use without RecBole and without data, and to train on from.

usage: recbole-hllm export RUN_DIR FOLDER [--key=value ...]

  RUN_DIR                   of a finished run of a model whose scores are products of vectors
  FOLDER                    of the export: a new or empty one
  --histories               with the history of every user, so that users can be asked for by their id
  --dtype=float32           of the vectors of items: float32, bfloat16 or int8; what rounding costs is measured
  --vectors=parquet         with the vectors of items and users for other programs, as npy or parquet, in FOLDER/vectors
  --onnx                    with the user model as ONNX (HLLM, the SASRec family), compared with torch
  --licence=NAME            of the weights, such as mit; --llm_licence and --data_licence of what they were made from:
                            the model card, README.md, asks for those that are not given

  from recbole_hllm.serving import Recommender
  Recommender.from_pretrained("FOLDER").recommend(items=["1", "50"], k=10)
"""

from recbole_hllm.errors import ConfigError, did_you_mean
from recbole_hllm.verbs.line import parse_arguments, switched_on

_OPTIONS = ("histories", "dtype", "vectors", "onnx", "licence", "llm_licence", "data_licence")


def main(words: list[str]) -> int:
    """One export."""
    words = list(words)
    if len(words) < 2 or any(word.startswith("-") for word in words[:2]):
        raise ConfigError("export: name a run and a new folder: recbole-hllm export RUN_DIR FOLDER")
    run_dir, folder, given = words.pop(0), words.pop(0), parse_arguments(words)
    for name in given:
        if name not in _OPTIONS:
            raise ConfigError(f"export: there is no --{name}{did_you_mean(name, _OPTIONS)}")
    from recbole_hllm.runs.card_facts import Licences
    from recbole_hllm.runs.export import export
    from recbole_hllm.runs.quality import quality_lines
    from recbole_hllm.runs.run import load_run
    from recbole_hllm.serving.folder import read_manifest

    histories, onnx = (switched_on(name, given.get(name, "False")) for name in ("histories", "onnx"))
    licences = Licences(*map(given.get, ("licence", "llm_licence", "data_licence")))
    options = {name: given[name] for name in ("dtype", "vectors") if name in given}
    done = export(load_run(run_dir), folder, histories=histories, onnx=onnx, licences=licences, **options)
    if given.get("dtype", "float32") != "float32":
        print("\n".join(quality_lines(read_manifest(done)["quality"])))
    print(done)
    return 0
