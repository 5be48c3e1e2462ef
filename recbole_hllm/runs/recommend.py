"""Recommendations from a finished run: what its model lists for users of the test, and what the items are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.utils import FeatureType

from recbole_hllm.config.config import Config
from recbole_hllm.data.files.formats import find_table, read_header
from recbole_hllm.data.loader import EvalLoader
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.data.texts.item_texts import read_item_texts
from recbole_hllm.data.texts.template import TextTemplate
from recbole_hllm.errors import ConfigError, DataError, did_you_mean
from recbole_hllm.evaluation.ranking import ScoreTable, rank
from recbole_hllm.runs.run import Run
from recbole_hllm.training.trainer import Trainer


@dataclass(frozen=True)
class Recommendation:
    """A list of a user, beside what the user had before it and next, by the data's own ids.

    Attributes:
        user: whose it is.
        history: items before the test, oldest first; all of them, of which the model may read the last only.
        next_items: targets of the test, what the user really had next.
        items: recommended, best first.
    """

    user: str
    history: list[str]
    next_items: list[str]
    items: list[str]


def recommend(run: Run, users: Sequence[str] | None = None, k: int = 10) -> list[Recommendation]:
    """The best items for users of the test, in the place of the test: scored, masked and chosen from as there.

    Args:
        run: from ``load_run``, of a model that ranks items.
        users: their ids in the data; None for the first user of the test.
        k: how many items; fewer where a user has fewer candidates.

    Raises:
        ConfigError: the run has no test, or scores labelled rows.
        DataError: a user is not in the data, or not in the test.
    """
    loader, data = run.test_data, run.dataset
    if not isinstance(loader, EvalLoader):
        raise ConfigError(f"{run.run_dir}: a run without a test, or of labelled rows, has no lists of items to show")
    part = loader._dataset
    rows = np.zeros(1, np.int64) if users is None else part.first_rows([_number(data, user) for user in users])
    scores = Trainer(run.config, run.model.eval(), run.run_dir).scores(loader, rows)
    nothing = torch.empty(0, dtype=torch.long, device=scores.device)
    best = rank(ScoreTable(scores), nothing, nothing, k=min(k, data.item_num - 1)).lists.cpu()
    return _described(data, part, rows, best)


def histories_of(data: SequenceDataset, loader: EvalLoader, users: Sequence[int]) -> list[Recommendation]:
    """Users of the test by their internal ids, with what they had before it and next, and nothing recommended.

    Args:
        data: after ``build``.
        loader: of its test.
        users: internal ids; the first row of each counts.
    """
    part = loader._dataset
    return _described(data, part, part.first_rows(users), torch.zeros(len(users), 0, dtype=torch.long))


def _described(data: SequenceDataset, part: Any, rows: np.ndarray, best: torch.Tensor) -> list[Recommendation]:
    """What rows of a part are, by the data's ids, with (R, K) recommended items, filled up with 0."""
    whose = part.inter_feat[rows][data.uid_field]
    history, held_out = part.histories(rows), part.positives(rows)

    def ids(items: Any) -> list[str]:
        return data.id2token(data.iid_field, items.numpy()).tolist()

    return [
        Recommendation(
            user=str(data.id2token(data.uid_field, int(whose[row]))),
            history=ids(history[1][history[0] == row]),
            next_items=ids(held_out[1][held_out[0] == row]),
            items=ids(best[row][best[row] > 0]),
        )
        for row in range(len(rows))
    ]


def _number(data: SequenceDataset, user: str) -> int:
    known = data.field2token_id[data.uid_field]
    if str(user) not in known:
        raise DataError(f"user {user!r} is not in '{data.dataset_name}'{did_you_mean(str(user), known)}")
    return known[str(user)]


def item_names(run: Run) -> dict[str, str]:
    """``names_of`` the items of a run."""
    return names_of(run.config, run.dataset)


def names_of(config: Config, data: SequenceDataset) -> dict[str, str]:
    """What each item of the data is called: the first of ``text_keys``, or of the text columns of the item table;
    its id where it has no text."""
    ids = list(map(str, data.field2id_token[data.iid_field]))
    path = find_table(Path(config["data_path"]) / f"{config['dataset']}.item")
    reading = {"field_separator": config["field_separator"], "encoding": config["encoding"] or "utf-8"}
    header = read_header(path, *reading.values()) if path.exists() else {}
    keys = config["text_keys"] or [name for name, kind in header.items() if kind == FeatureType.TOKEN_SEQ]
    if not header or not keys:
        return {item: item for item in ids}
    key = keys if isinstance(keys, str) else keys[0]
    texts = read_item_texts(path, [key], ids, data.iid_field, **reading)
    title = TextTemplate((key,), "", field="{value}")
    return {item: title.render(fields) or item for item, fields in zip(ids, texts.fields, strict=True)}
