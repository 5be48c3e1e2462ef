"""The model card of an export: a README.md whose figures are those of the run's files.

It begins with the metadata that the Hugging Face Hub reads. What the files do not say stands in brackets, for readers
to see and for its author to fill in.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_hllm.evaluation.columns import MASKED, is_masked, plain_name
from recbole_hllm.runs.card_facts import HUB_NAME, PART_NAMES, Exported, Facts, Licences
from recbole_hllm.units import MISSING, format_bytes, format_integer, format_seconds

_MASKING = {
    True: "items of a user's history are no candidates",
    False: "none: items of a user's history are candidates, too",
    "both": "two columns, with the items of a user's history left in the list and with them taken out",
}
_IN, _OUT = "history left in", "history taken out"
_CAPITALS = {"ndcg", "mrr", "map"}


def model_card(config: Any, run_dir: Path, exported: Exported, licences: Licences) -> str:
    """The text of the card.

    Args:
        config: the run's Config.
        run_dir: its folder.
        exported: what the export has.
        licences: of its parts.

    Raises:
        Damaged: a file of the run is missing or damaged.
    """
    facts = Facts(config, run_dir)
    version = facts.versions["recbole_hllm"]
    sections = [
        f"# {facts.model} on {facts.dataset}",
        f"{facts.model} recommends the next item after a history. Trained with recbole-hllm {version}.",
        *_use(exported),
        *_licences(facts, licences),
        *_protocol(facts, exported),
        *_results(facts),
        *_rounded(exported.quality),
        *_costs(facts),
        *_limits(facts, exported),
    ]
    return f"---\n{_metadata(facts, licences)}\n---\n\n" + "\n\n".join(sections) + "\n"


def _metadata(facts: Facts, licences: Licences) -> str:
    """The YAML at the top."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="sequential-recommendation",
            task_name="Next-item recommendation",
            dataset_type=facts.dataset,
            dataset_name=facts.dataset,
            dataset_split=PART_NAMES[facts.part],
            metric_type=name,
            metric_name=_title(name) + (f", {_OUT}" if is_masked(name) else ""),
            metric_value=value,
        )
        for name, value in facts.result.items()
        if value is not None
    ]
    data = ModelCardData(
        license=licences.weights or "unknown",
        library_name="recbole-hllm",
        tags=["recommender-system", "sequential-recommendation", "recbole", facts.model.lower()],
        datasets=[facts.dataset],
        metrics=list(dict.fromkeys(plain_name(name).partition("@")[0] for name in facts.result)) or None,
        base_model=[name for name in facts.made_from if HUB_NAME.fullmatch(name)] or None,
        model_name=f"{facts.model} on {facts.dataset}",
        eval_results=results or None,
    )
    return str(data.to_yaml()).rstrip()


# ---- sections, each a list of paragraphs ----


def _use(exported: Exported) -> list[str]:
    history = [str(item) for item in exported.ids]
    times = [1_700_000_000 + 86_400 * place for place in range(len(history))]
    given = f", times={times}" if exported.reads_times else ""
    code = [
        "from recbole_hllm.serving import Recommender",
        "",
        'recommender = Recommender.from_pretrained("FOLDER")  # this folder, or user/name of the Hub',
        f"for item in recommender.recommend(items={history!r}{given}, k=10):  # the oldest first",
        "    print(item.id, item.score, item.fields)",
    ]
    if exported.text_keys:
        fields = {key: "..." for key in exported.text_keys}
        code += [f"recommender.add_items({{'new': {fields!r}}})  # is recommended from now on"]
    block = "\n".join(["```python", *code, "```"])
    return ["## Use", "`pip install recbole-hllm`. Neither the data nor RecBole's files are needed.", block]


def _licences(facts: Facts, licences: Licences) -> list[str]:
    def line(what: str, licence: str | None) -> str:
        return f"{what}: {licence or '**[fill in: its licence]**'}"

    models = [line(f"`{name}`, which it was made from", licences.language_model) for name in facts.made_from]
    data = line(f"The data `{facts.dataset}`", licences.data)
    return ["## Licences", _list([line("The weights", licences.weights), *models, data])]


def _protocol(facts: Facts, exported: Exported) -> list[str]:
    protocol, counts = facts.protocol, facts.protocol["statistics"]
    arguments, fingerprint = protocol["eval_args"], protocol["fingerprint"]
    mode, targets = arguments["mode"], fingerprint.get(f"{facts.part}_targets")
    candidates = mode[facts.part] if isinstance(mode, Mapping) else mode
    among = "every item" if candidates == "full" else f"`{candidates}`, drawn once from the seed"
    users, items, interactions = (format_integer(counts[name]) for name in ("users", "items", "interactions"))
    lines = [
        f"Data: `{facts.dataset}`, {users} users, {items} items, {interactions} interactions",
        f"Split: {_split(arguments)}",
        f"Metrics: of the {PART_NAMES[facts.part]}, {format_integer(targets)} targets, among {among}",
        f"Masking: {_MASKING[protocol['mask_history']]}",
        f"Histories: the last {protocol['history_length']} items in training, {protocol['history_length_test']} in "
        f"evaluation{'; all items where pairs of items are counted' if exported.reads_all else ''}",
        f"Seed: {protocol['seed']}; weights of {_weights(facts)}",
        f"Digests of the training interactions and of the targets: `{fingerprint.get('training')}`, "
        f"`{fingerprint.get(f'{facts.part}_pairs')}`",
    ]
    if facts.parts:
        lines.append(f"Made of other runs: {', '.join(facts.parts)}")
    return ["## Data and protocol", _list(lines)]


def _split(arguments: Mapping[str, Any]) -> str:
    order = {"TO": "in order of time", "RO": "in random order"}.get(arguments["order"], str(arguments["order"]))
    ((kind, how),) = arguments["split"].items()
    if (kind, how) == ("LS", "valid_and_test"):
        return f"leave one out, {order}: a user's last interaction is the test, the one before it the validation"
    return f"`{kind}: {how}`, {order}"


def _weights(facts: Facts) -> str:
    validated = facts.metrics["best_valid_score"] is not None
    return "the best validation" if validated else "the last epoch, without a validation"


def _results(facts: Facts) -> list[str]:
    both = any(map(is_masked, facts.result))
    columns = {"": _IN, MASKED: _OUT} if both else {"": "this model"}
    header = ["metric"]
    for head in columns.values():
        header += [head, f"{head}, mean ± sd"] if facts.seeds else [head]
    lines = []
    for name in filter(lambda name: not is_masked(name), facts.result):
        cells = [_title(name)]
        for mark in columns:
            cells.append(_number(facts.result[name + mark]))
            if facts.seeds:
                cells.append(_spread([result[name + mark] for result in facts.seeds.values()]))
        lines.append(cells)
    seeds = ", ".join(map(str, facts.seeds))
    said = [f"Mean and standard deviation are those of {len(facts.seeds)} runs with the seeds {seeds}."]
    return ["## Results", _table([header, *lines]), *(said if facts.seeds else [])]


def _rounded(quality: Mapping[str, Any] | None) -> list[str]:
    if quality is None:
        return []
    dtype, part = quality["dtype"], PART_NAMES[quality["of"]]
    lines = [
        [_title(name) + (f", {_OUT}" if is_masked(name) else ""), _number(before), _number(quality["written"][name])]
        for name, before in quality["float32"].items()
    ]
    return [
        "## Rounded vectors",
        f"The numbers of items were written as {dtype}, {format_bytes(quality['bytes'])}. Metrics of the {part} with "
        f"them in float32 and in {dtype}, the user model in float32 in both:",
        _table([["metric", "float32", dtype], *lines]),
    ]


def _costs(facts: Facts) -> list[str]:
    costs = facts.costs
    total, trained, needed = (format_integer(costs[f"parameters_{name}"]) for name in ("total", "trained", "inference"))
    lines = [
        f"Parameters: {total}, of which {trained} were trained and {needed} are needed to recommend",
        f"Training: {format_seconds(costs['training_seconds'])}, {format_integer(costs['epochs'])} epochs, on "
        f"{costs['device']} in {facts.protocol['precision']}; it ended because of: {costs['stop_reason']}",
        f"Memory at the peak: {format_bytes(costs['peak_memory_bytes'])}",
        f"Versions: torch {facts.versions['torch']}, transformers {facts.versions['transformers']}, Python "
        f"{facts.versions['python']}",
    ]
    return ["## Costs", _list(lines)]


def _limits(facts: Facts, exported: Exported) -> list[str]:
    texts = ", ".join(f"`{key}`" for key in exported.text_keys or ())
    new = f"yes, from their {texts}" if texts else "no: this export has nothing that makes a vector of a new one"
    users = "the histories of the data's users are in this folder" if exported.has_histories else "none are stored"
    lines = [
        f"It knows what `{facts.dataset}` shows: other shops, languages and times were not tested.",
        f"New items: {new}.",
        "New users: yes, a user is a history. Nothing is recommended without one.",
        f"Users: {users}.",
        "The figures are of logged interactions: what people would do with the lists was not measured.",
    ]
    if exported.reads_times:
        lines.insert(2, "It reads times: a request gives the time of each item.")
    return ["## Limits", _list(lines), *_rare(facts)]


def _rare(facts: Facts) -> list[str]:
    """How good it is for items that are rare in the training."""
    metric = next((name for name in facts.result if name.startswith("ndcg")), next(iter(facts.result), None))
    if not facts.popularity or metric is None:
        return []
    rows = [
        [segment["segment"], format_integer(segment["targets"]), _number(segment.get(metric))]
        for segment in facts.popularity
    ]
    header = ["interactions of the item in training", "targets", _title(metric)]
    return ["By how often the item was in the training:", _table([header, *rows])]


# ---- words ----


def _title(metric: str) -> str:
    """NDCG@10."""
    name, at, k = plain_name(metric).partition("@")
    return (name.upper() if name in _CAPITALS else name.capitalize()) + at + k


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return MISSING
    return f"{np.mean(known):.4f} ± {np.std(known, ddof=1):.4f}"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(lines: Sequence[Sequence[str]]) -> str:
    header, *rows = lines
    ruler = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ruler, *rows])
