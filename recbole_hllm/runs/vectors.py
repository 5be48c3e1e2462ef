"""Vectors of all items and users of a finished run, as files for other programs."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_hllm.config.keys.next_item import HistoryKeys
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.errors import ConfigError, ModelError, did_you_mean
from recbole_hllm.model.base.contract import Factorised
from recbole_hllm.model.base.served_model import served_of
from recbole_hllm.runs.run import Run
from recbole_hllm.serving.rows import Rows
from recbole_hllm.serving.served import ServedBlend
from recbole_hllm.storage.files import writing

FORMS = ("npy", "parquet")


@torch.no_grad()
def write_vectors(run: Run, folder: str | Path, form: str = "npy") -> None:
    """Writes the vectors and the data's own ids, in the same order; of a model whose scores are made of more,
    ``beside.npz``.

    ``npy``: ``item_vectors.npy``, ``user_vectors.npy`` (float32, a row each) and ``item_ids.txt``, ``user_ids.txt`` (a
    line each). ``parquet``: ``item_vectors.parquet`` with the columns ``item_id`` and ``vector`` (a list of D float32),
    ``user_vectors.parquet`` with ``user_id`` and ``vector``.

    A user's vector is what the model predicts after the user's latest interactions in the data, validation and test
    ones included, as many as an evaluation's history holds (`SequenceDataset.latest_rows`). Where scores are cosines,
    both are L2-normalised: their dot product is the score. Those of E4SRec, whose dot product is the score, are as they
    are, and those of HLLMRanker as its head reads them.

    Args:
        run: of a model of this package that scores users' vectors with items', from ``load_run``.
        folder: made where it is missing; files of these names are overwritten.
        form: one of `FORMS`.

    Raises:
        ConfigError: there is no such form, the disk is full or the folder cannot be written.
        ModelError: the model has no such vectors, as HLLMRanker with early fusion; nothing is written then.
    """
    folder, model, data, settings = Path(folder), run.model.eval(), run.dataset, RunKeys.of(run.config)
    if form not in FORMS:
        raise ConfigError(f"vectors: {form!r} is not one of {', '.join(FORMS)}{did_you_mean(form, FORMS)}")
    users, sequences = data.latest_sequences()
    steps = np.split(sequences, range(settings.eval_batch_size, len(sequences), settings.eval_batch_size))
    rows = (data.latest_rows(step).to(settings.device) for step in steps)
    items, of_users = _of_model(model, rows) if isinstance(model, Factorised) else _as_served(run, rows)
    first = next(of_users)  # a model that cannot compute them says so before there are files
    item_ids = data.id2token(data.iid_field, np.arange(1, data.item_num))
    write = _write_npy if form == "npy" else _write_parquet
    with writing(folder, "vectors"):
        folder.mkdir(parents=True, exist_ok=True)
        width = items.shape[1]
        write(folder, "item", list(map(str, item_ids)), width, [items])
        write(folder, "user", list(map(str, data.id2token(data.uid_field, users))), width, chain([first], of_users))
        if isinstance(model, Factorised) and (beside := model.beside_vectors()):
            arrays: dict[str, Any] = {name: array.cpu().numpy() for name, array in beside.items()}
            np.savez(folder / "beside.npz", **arrays)


def _of_model(model: Factorised, rows: Iterable[Interaction]) -> tuple[Tensor, Iterator[Tensor]]:
    """(N, E) vectors of items without padding, and those of users for each batch of rows; scores are their products."""
    finish = (lambda vectors: F.normalize(vectors, dim=-1)) if model.similarity == "cosine" else torch.nn.Identity()
    return finish(model.candidate_vectors()[1:]), (finish(model.user_vectors(batch)) for batch in rows)


def _as_served(run: Run, rows: Iterable[Interaction]) -> tuple[Tensor, Iterator[Tensor]]:
    """The same of a model that says what they are to who serves it alone, such as RecBole's SASRec.

    Raises:
        ModelError: it has none.
    """
    keys = HistoryKeys.of(run.config)
    try:
        served = served_of(run.model)
    except ModelError as error:
        raise ModelError(f"{keys.model} has no vectors of users and items to write: {error}") from error
    if isinstance(served, ServedBlend):
        raise ModelError(f"{keys.model} has no vectors of users and items to write: its scores are no products of them")
    items, lengths = keys.ITEM_ID_FIELD + keys.LIST_SUFFIX, keys.ITEM_LIST_LENGTH_FIELD
    return served.items[1:], (served.users(Rows(batch[items], batch[lengths])) for batch in rows)


def _write_npy(folder: Path, kind: str, ids: Sequence[str], width: int, blocks: Iterable[Tensor]) -> None:
    """A float32 .npy file, block by block: a catalogue and its users may be larger than memory."""
    path, begin = folder / f"{kind}_vectors.npy", 0
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(ids), width))
    for block in blocks:
        rows[begin : begin + len(block)] = block.float().cpu().numpy()
        begin += len(block)
    rows.flush()
    (folder / f"{kind}_ids.txt").write_text("".join(f"{one}\n" for one in ids), encoding="utf-8")


def _write_parquet(folder: Path, kind: str, ids: Sequence[str], width: int, blocks: Iterable[Tensor]) -> None:
    """A .parquet file, a group of rows for each block."""
    vectors, begin = pa.list_(pa.float32(), width), 0
    schema = pa.schema([(f"{kind}_id", pa.string()), ("vector", vectors)])
    with pq.ParquetWriter(folder / f"{kind}_vectors.parquet", schema) as file:
        for block in blocks:
            numbers = pa.array(block.float().cpu().numpy().reshape(-1))
            columns = [pa.array(ids[begin : begin + len(block)]), pa.FixedSizeListArray.from_arrays(numbers, width)]
            file.write_table(pa.Table.from_arrays(columns, schema=schema))
            begin += len(block)
