"""The training schedule that HLLM was deployed with (arXiv 2409.12740), of three stages: both LLMs end to end; the User
LLM on stored item vectors, with longer histories; nothing any more, and the vectors are written for other programs. A
stage before them warms the User LLM up on stored vectors of the Item LLM as it is."""

import copy
import gc
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_hllm.config.config import Config
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.parsing import read_yaml
from recbole_hllm.config.renamed import read_saved
from recbole_hllm.config.scopes import MAY_CHANGE, NOT_SAVED, SHARED
from recbole_hllm.data.protocol import check_same_reference
from recbole_hllm.errors import ConfigError, naming
from recbole_hllm.model.base.servable import Staged
from recbole_hllm.processes import Processes, alone, begin, current, ending_together
from recbole_hllm.registry import known_name
from recbole_hllm.runs.export import export
from recbole_hllm.runs.folder import (
    KEYS,
    check_same_run,
    make_folder,
    none_begun,
    read_settings,
    refuse_existing,
    saved_keys,
    unused_folder,
    write_yaml,
)
from recbole_hllm.runs.run import as_files, load_run, merge_keys, run
from recbole_hllm.runs.vectors import write_vectors
from recbole_hllm.storage.files import read_json, write_json, write_text
from recbole_hllm.storage.logs import check_wandb
from recbole_hllm.training.checkpoint import replacing
from recbole_hllm.training.trainer import Trainer
from recbole_hllm.units import format_seconds

STAGES = (0, 1, 2, 3)
_EXPORT = "export"
# What makes a stage what it is: no key of the user's.
_FROZEN: dict[str, Any] = {"item_llm_tuning": "frozen", "item_llm_layers_trained": None}
_LLMS_OF_THE_EXPORT = dict.fromkeys(f"{part}_llm_{key}" for part in ("item", "user") for key in ("config", "layers"))
_FIXED: dict[int, dict[str, Any]] = {
    0: _FROZEN,
    1: {},
    2: _FROZEN,
    # No epoch, so nothing is trained; "frozen" would want something to train beside the LLMs.
    3: {**_FROZEN, "user_llm_tuning": "full", "epochs": 0},
}
# Results of all stages stand in one table.
_OF_ALL_STAGES = SHARED | NOT_SAVED | {"training_stage"}
_COSTS = ("parameters_total", "parameters_trained", "epochs", "stop_reason", "training_seconds")


@ending_together()
def run_stages(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: str | Path | Sequence[str | Path] | None = None,
    config_dict: dict[str, Any] | None = None,
    run_dir: str | Path | None = None,
    arguments: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Runs the stages that ``training_stage`` names, each in a run folder ``stage-<n>`` of its own, as ``run`` does.

    0. The Item LLM is frozen as it is: its vectors are computed once, and what lies above it is trained. Of use where
       that would spoil a pretrained Item LLM as long as it is random.
    1. Both LLMs are trained as their keys say, from the export of stage 0 where the schedule has one; the best weights
       go to ``stage-1/export`` (``export``).
    2. Starts from that export with the Item LLM frozen: item vectors are computed once and looked up, and the Item
       LLM leaves the memory. Exported again, Item LLM included.
    3. Starts from the export of stage 2 and trains nothing: it is evaluated, and vectors of all items and users are
       written to ``stage-3/export`` (``write_vectors``). It has the keys of stage 2, unless it has its own.

    A key ``stage2.<key>`` sets ``<key>`` for that stage only and is stronger than ``<key>`` and ``<Model>.<key>``.
    Files may hold keys of stages that are not run now. A schedule in ``run_dir`` goes on with its own keys, those given
    now on top, which cannot change those of a finished stage; with ``resume`` finished stages stay and an unfinished
    one goes on from its last checkpoint.

    Args:
        model: HLLM or HLLMRanker, or a variant of one of them.
        dataset, config_file_list, config_dict, arguments: as for ``run``; ``training_stage`` is among their keys.
        run_dir: folder of the schedule, also written to: ``stages.md``, ``stages.json`` and the keys given; default
            ``runs/<dataset>/<model>-stages-<time>``.

    Returns:
        ``stages``, a dict of results and costs for each finished stage in the folder, and ``run_dir``.

    Raises:
        ConfigError: before anything runs, for keys of any stage that are wrong whatever the data and the weights are,
            or an earlier stage that is missing, unfinished, or had other keys.
        UserError: as ``run``, when a stage's turn comes.
    """
    files = as_files(config_file_list)
    model = known_name(model) if isinstance(model, (str, type)) else model
    named = {key: value for key, value in (("model", model), ("dataset", dataset)) if value}
    now = {**merge_keys((), config_dict, arguments), **named}
    given = {**merge_keys(files), **now}
    if given.get("evaluate_only"):
        raise ConfigError("evaluate_only: one run at a time; give the run_dir of one stage, PATH/stage-2")
    if given.get("resume") or is_schedule(run_dir) and not none_begun(Path(run_dir or "")):
        given = {**_read_keys(run_dir), **given}
    stages = read_stages(given.get("training_stage"))
    folder = Path(run_dir) if run_dir else unused_folder(str(given.get("dataset")), f"{given.get('model')}-stages")
    _check_names(given, now, stages, folder)
    keys = {stage: _keys_of(stage, given, folder) for stage in stages}
    configs = {stage: _checked(stage, keys[stage], stages) for stage in stages}
    processes = _meet(configs[stages[0]], run_dir)
    check_same_reference({f"stage {stage}": config["reference"] for stage, config in configs.items()})
    _check_llms(configs)
    _check_folders(folder, stages, configs, run_dir, given)
    _check_finished(folder, given)
    processes.wait()
    if processes.is_first:
        make_folder(folder)
        write_yaml(folder / KEYS, saved_keys(given))
    for stage in stages:
        _run_stage(stage, keys[stage], folder)
    return _report(folder)


def read_stages(value: Any) -> list[int]:
    """``training_stage`` as a list: one stage, or several that follow each other.

    Raises:
        ConfigError: anything else.
    """
    if value is None:
        raise ConfigError("training_stage is not set: give --training_stage=[1,2,3], or a part of it, or one stage")
    stages = value if isinstance(value, list) else [value]
    known = all(type(stage) is int and stage in STAGES for stage in stages)
    if not known or not stages or stages != list(range(stages[0], stages[-1] + 1)):
        raise ConfigError(
            f"training_stage: {value!r} is not one of the stages 0, 1, 2 and 3, nor a list of some of them that follow "
            "each other, such as [1, 2, 3]"
        )
    return stages


def is_schedule(run_dir: str | Path | None) -> bool:
    """Whether a folder is that of stages which ``run_stages`` has begun."""
    file = Path(run_dir or "", KEYS)
    return bool(run_dir) and file.is_file() and "training_stage" in read_yaml(file)


def _meet(config: Config, run_dir: str | Path | None) -> Processes:
    """Raises ConfigError where several processes would each name a folder."""
    settings = RunKeys.of(config)
    processes = begin(settings.device, settings.process_minutes)
    if processes.world_size > 1 and not run_dir:
        raise ConfigError("training_stage: several processes need the folder of the stages by name: give run_dir")
    return processes


# ---- keys ----


def _read_keys(run_dir: str | Path | None) -> dict[str, Any]:
    """Keys of the schedule in a folder, which is to go on."""
    if not run_dir:
        raise ConfigError("resume: name the folder of the unfinished stages, run_dir")
    if not is_schedule(run_dir):
        raise ConfigError(f"run_dir: there are no stages in {run_dir}: no {KEYS} with training_stage")
    return saved_keys(read_saved(Path(run_dir, KEYS)))


def _check_names(given: dict[str, Any], now: dict[str, Any], stages: list[int], folder: Path) -> None:
    """Raises ConfigError for names of stages, and keys of a stage, that would be ignored or contradict the schedule."""
    if "," in str(given.get("model")) or isinstance(given.get("model"), list):
        raise ConfigError(f"training_stage: {given['model']}: one model is trained in stages, not a table of several")
    for shown in given:
        match = re.fullmatch(r"stage([^.]*)\.(.*)", shown)
        if match is None:
            continue
        number, key = match.groups()
        if number not in map(str, STAGES):
            raise ConfigError(f"key '{shown}': there is no stage '{number}', only 0, 1, 2 and 3")
        if "." in key or key in _OF_ALL_STAGES:
            raise ConfigError(f"key '{shown}': '{key}' cannot be of one stage; write {key}, or stage{number}.<key>")
        if key in _fixed(int(number), given, folder):
            raise ConfigError(f"key '{shown}': in stage {number} the schedule itself sets '{key}'")
        used = {*stages, *({2} if 3 in stages else ())}
        if shown in now and int(number) not in used:
            raise ConfigError(f"key '{shown}': stage {number} is not run; training_stage is {given['training_stage']}")


def _fixed(stage: int, given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Keys that a stage sets itself."""
    if stage == _first_of(given, folder):
        return _FIXED[stage]
    export = str(_stage_folder(folder.resolve(), stage - 1) / _EXPORT)
    return {**_FIXED[stage], **_LLMS_OF_THE_EXPORT, "pretrained_hllm": export}


def _first_of(given: dict[str, Any], folder: Path) -> int:
    """The stage of a whole schedule that starts from no other: 0 where that is run or there, else 1."""
    return 0 if 0 in read_stages(given["training_stage"]) or _stage_folder(folder, 0).exists() else 1


def _keys_of(stage: int, given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The keys of one stage's run. Stage 3 uses the model of stage 2, so it has its history length and all the rest."""
    own: dict[str, Any] = {}
    for number in (2, 3) if stage == 3 else (stage,):
        own |= {key.split(".", 1)[1]: value for key, value in given.items() if key.startswith(f"stage{number}.")}
    own |= {**_fixed(stage, given, folder), "training_stage": None}
    weaker = {key: value for key, value in given.items() if not re.match(r"stage\d\.", key)}
    return {key: value for key, value in weaker.items() if key.rpartition(".")[2] not in own} | own


def _checked(stage: int, keys: dict[str, Any], stages: list[int]) -> Config:
    """The config of a stage, before hours are spent on an earlier one.

    Raises:
        ConfigError: wrong keys, or a model that this stage cannot be made of.
    """
    config = _config(stage, keys)
    if not issubclass(config.spec.model, Staged):
        raise ConfigError(f"training_stage: {config['model']} is not trained in stages; HLLM and HLLMRanker are")
    if config["fusion"] == "early" and 3 in stages:
        raise ConfigError(
            "fusion: early reads each candidate with the history, so stage 3 has no user vectors to write; take "
            "fusion: late, or training_stage: [1, 2]"
        )
    if stage == 1 and config["item_llm_tuning"] == "frozen":
        raise ConfigError("item_llm_tuning: stage 1 trains both LLMs and stage 2 freezes this one; take full or lora")
    with naming(f"stage {stage}"):
        config.spec.model.check_keys(config)
        Trainer.check_keys(config)
        check_wandb(config)
    return config


def _check_llms(configs: dict[int, Config]) -> None:
    """Later stages read the LLMs of the first, which is not there yet, otherwise: longer histories, or LoRA."""
    first, *later = configs
    for stage in later:
        llms = {key: configs[first][key] for key in (*_LLMS_OF_THE_EXPORT, "pretrained_hllm")}
        config = copy.copy(configs[stage])
        config.final_config_dict = {**config.final_config_dict, **llms}
        with naming(f"stage {stage}"):
            config.spec.model.check_llms(config)


def _config(stage: int, keys: dict[str, Any]) -> Config:
    with naming(f"stage {stage}"):
        return Config(config_dict=keys)


# ---- folders ----


def _stage_folder(folder: Path, stage: int) -> Path:
    return folder / f"stage-{stage}"


def _check_folders(
    folder: Path, stages: list[int], configs: Mapping[int, Config], run_dir: str | Path | None, given: dict[str, Any]
) -> None:
    """Raises ConfigError where a stage is of another model or data set, something would be overwritten, or the stage
    before the first is not there."""
    first = stages[0]
    for own in (_stage_folder(folder, stage) for stage in STAGES):
        if (own / "config.yaml").is_file():
            check_same_run(own, read_settings(own), configs[first])
    if first == 0 and _stage_folder(folder, 1).exists() and not _stage_folder(folder, 0).exists():
        raise ConfigError(f"training_stage: stage 0 comes before stage 1, which {folder} has; use another run_dir")
    if not given.get("resume"):
        refuse_existing(folder, ["config.yaml"] if is_schedule(folder) else ["config.yaml", KEYS])
        for stage in stages:
            refuse_existing(_stage_folder(folder, stage), ["config.yaml", _EXPORT])
    if first == _first_of(given, folder):
        return
    before = _stage_folder(folder, first - 1)
    if not run_dir:
        raise ConfigError(f"training_stage: {first} starts from stage {first - 1}: name the run_dir that has it")
    if not (before / _EXPORT).is_dir():
        state = "is unfinished" if (before / "config.yaml").is_file() else "is not there"
        raise ConfigError(
            f"training_stage: {first} starts from stage {first - 1}, but {before} {state}: it has no {_EXPORT}/; "
            f"finish that stage (training_stage: {first - 1}, with --resume where it has begun)"
        )


def _check_finished(folder: Path, given: dict[str, Any]) -> None:
    """Raises ConfigError where a finished stage, which is not repeated, had another value of a key."""
    for stage in STAGES:
        own = _stage_folder(folder, stage)
        if not (own / "costs.json").is_file():
            continue
        had, keys = read_settings(own), _keys_of(stage, given, folder)
        now = _config(stage, {**had, **keys}).settings  # what was not given, then or now, is as it was
        free = {*MAY_CHANGE, *_fixed(stage, given, folder)}
        changed = [key for key, value in now.items() if key not in free and had.get(key) != value]
        if changed:
            key = changed[0]
            raise ConfigError(
                f"{key}: the finished stage {stage} in {folder} had {had.get(key)!r}, and now it is {now[key]!r}; use "
                f"another run_dir, or the value it had (stage<n>.{key} is for a stage that is not finished)"
            )


# ---- runs ----


def _run_stage(stage: int, keys: dict[str, Any], folder: Path) -> None:
    """Runs a stage or what is left of it; its ``export/`` appears whole and last."""
    own, processes = _stage_folder(folder, stage), current()
    names = (_EXPORT, "costs.json", "config.yaml")
    exported, finished, begun = processes.first_of([(own / name).exists() for name in names])
    if exported:
        return
    if processes.is_first:
        print(f"stage {stage}: {own}", flush=True)
    gc.collect()  # the models of the stage before
    if not finished:  # a run writes its costs last
        run(config_dict={**keys, "resume": begun}, run_dir=own)
    if processes.is_first:
        with alone():
            _export(stage, keys, own)
    processes.wait()


def _export(stage: int, keys: dict[str, Any], own: Path) -> None:
    allowed = {"trust_remote_code": True} if keys.get("trust_remote_code") else {}
    finished = load_run(own, allowed)
    with replacing(own / _EXPORT) as new:
        if stage == 3:
            write_vectors(finished, new)
        else:
            export(finished, new)


def _report(folder: Path) -> dict[str, Any]:
    """Writes and prints the table of the finished stages, in the first process."""
    done = [stage for stage in STAGES if (_stage_folder(folder, stage) / _EXPORT).is_dir()]
    rows = [_row(stage, _stage_folder(folder, stage)) for stage in done]
    if current().is_first:
        write_json(folder / "stages.json", rows)
        table = stages_table(rows)
        write_text(folder / "stages.md", table)
        print(f"\n{table}\n{folder}: stages.md, stages.json, and a folder for each stage", flush=True)
    current().wait()
    return {"stages": rows, "run_dir": str(folder)}


def _row(stage: int, own: Path) -> dict[str, Any]:
    metrics, costs, protocol = (read_json(own / f"{name}.json") for name in ("metrics", "costs", "protocol"))
    return {
        "stage": stage,
        "history_length": protocol["history_length"],
        "best_valid_result": metrics["best_valid_result"],
        "test_result": metrics["test_result"],
        **{cost: costs[cost] for cost in _COSTS},
    }


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.4f}"


def stages_table(rows: list[dict[str, Any]]) -> str:
    """Results of stages as a Markdown table: each metric in validation and test, and what the training took.

    Args:
        rows: what ``run_stages`` returns as ``stages``.
    """
    names = list(dict.fromkeys(name for row in rows for name in (row["test_result"] or row["best_valid_result"] or {})))
    lines = [["stage", "history", *(f"{name} (valid / test)" for name in names), "trained", "epochs", "training"]]
    for row in rows:
        results = row["best_valid_result"] or {}, row["test_result"] or {}
        cells = [" / ".join(_cell(of.get(name)) for of in results) for name in names]
        costs = f"{row['parameters_trained']:,}", str(row["epochs"]), format_seconds(row["training_seconds"])
        lines.append([str(row["stage"]), str(row["history_length"]), *cells, *costs])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * (width - 1) + ":" for width in widths]
    padded = (map(str.rjust, line, widths) for line in (lines[0], rule, *lines[1:]))
    return "\n".join(f"| {' | '.join(line)} |" for line in padded) + "\n"
