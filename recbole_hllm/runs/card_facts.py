"""What a model card says: facts from the files of a run, of an export beside it, and licences from its author."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recbole_hllm.errors import ConfigError
from recbole_hllm.runs.folder import read_settings
from recbole_hllm.runs.runs_read import runs_read
from recbole_hllm.storage.files import read_json

# Of a licence, as the Hugging Face Hub writes it, and of a repository there.
_LICENCE, HUB_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*"), re.compile(r"\w[\w.-]*/\w[\w.-]*")
_SEED = re.compile(r"seed-\d+")
# What parts of an evaluation are called.
PART_NAMES = {"test": "test", "valid": "validation"}
# Keys that name what a model was made from, beside those that end like those of language models.
_MADE_FROM = ("item_init", "pretrained_hllm")


@dataclass(frozen=True)
class Licences:
    """Under which each part may be used, as identifiers such as ``mit`` or ``apache-2.0``; None: not said.

    Args:
        weights: of the trained model.
        language_model: of what it was made from.
        data: of what it was trained on.

    Raises:
        ConfigError: one is no identifier.
    """

    weights: str | None = None
    language_model: str | None = None
    data: str | None = None

    def __post_init__(self) -> None:
        for part, value in asdict(self).items():
            if value is not None and not _LICENCE.fullmatch(value):
                raise ConfigError(f"licence of the {part}: {value!r} is no identifier such as mit, apache-2.0 or other")


@dataclass(frozen=True)
class Exported:
    """What a card says of an export beside its run.

    Args:
        ids: of some items of the catalogue, for examples.
        reads_times: a request has to give times.
        text_keys: fields of which the text of a new item is made; None: new items cannot be added.
        has_histories: histories of the data's users are in the folder.
        quality: of the manifest; None: the vectors are not rounded, or nothing was measured.
        reads_all: a part reads whole histories, however long they are.
    """

    ids: Sequence[str]
    reads_times: bool
    text_keys: Sequence[str] | None
    has_histories: bool
    quality: Mapping[str, Any] | None = None
    reads_all: bool = False


class Facts:
    """What the files of a run say.

    Args:
        config: the run's Config.
        run_dir: its folder.

    Attributes:
        metrics, protocol, costs, versions: the files of these names.
        part: ``test``, or ``valid`` of a run without one.
        result: metrics of the part.
        seeds: seed -> metrics, of the runs of a table's row that differ in nothing else; this one is among them.
        made_from: names of the language models it was made from, without places of a machine.
        parts: models of the runs that it reads.
        popularity: metrics by how often an item was in the training, a dict for each segment; none without a test.

    Raises:
        Damaged: a file of the run is missing or no JSON.
    """

    def __init__(self, config: Any, run_dir: Path) -> None:
        names = ("metrics", "protocol", "costs", "versions")
        self.metrics, self.protocol, self.costs, self.versions = (read_json(run_dir / f"{name}.json") for name in names)
        self.model, self.dataset = str(self.metrics["model"]), str(self.metrics["dataset"])
        self.part = "valid" if self.metrics["test_result"] is None else "test"
        self.result = _result(self.metrics, self.part)
        self.seeds = self._of_seeds(run_dir.resolve())
        settings = read_settings(run_dir)
        named = [settings[key] for key in settings if key.endswith("_pretrain_dir") or key in _MADE_FROM]
        self.made_from = list(dict.fromkeys(shown(str(name)) for name in named if name))
        self.parts = [str(read_json(folder / "metrics.json")["model"]) for folder in runs_read(config)]
        segments = run_dir / "segments.json"
        self.popularity = read_json(segments)["popularity"] if segments.is_file() else []

    def _of_seeds(self, run_dir: Path) -> dict[int, dict[str, float]]:
        if not _SEED.fullmatch(run_dir.name):
            return {}
        found = {}
        for other in run_dir.parent.iterdir():
            if _SEED.fullmatch(other.name) and (other / "metrics.json").is_file():
                metrics, protocol = read_json(other / "metrics.json"), read_json(other / "protocol.json")
                result = _result(metrics, self.part)
                if result.keys() == self.result.keys() and protocol["fingerprint"] == self.protocol["fingerprint"]:
                    found[int(protocol["seed"])] = result
        return dict(sorted(found.items())) if len(found) > 1 else {}


def _result(metrics: Mapping[str, Any], part: str) -> dict[str, float]:
    return metrics["test_result" if part == "test" else "best_valid_result"] or {}


def shown(source: str) -> str:
    """What a language model is called: its package or its name on the Hub; of a folder the last part alone."""
    if source.startswith("package:") or (HUB_NAME.fullmatch(source) and not Path(source).exists()):
        return source
    return Path(source).name
