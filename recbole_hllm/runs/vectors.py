"""Vectors of all items and users of a finished run, as files for other programs."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.errors import ModelError
from recbole_hllm.model.base.contract import Factorised
from recbole_hllm.runs.run import Run
from recbole_hllm.storage.files import write_text, writing


@torch.no_grad()
def write_vectors(run: Run, folder: str | Path) -> None:
    """Writes ``item_vectors.npy``, ``user_vectors.npy`` (float32, a row each) and ``item_ids.txt``, ``user_ids.txt``
    (the data's own ids, a line each, in the same order); of a model whose scores are made of more, ``beside.npz``.

    A user's vector is what the model predicts after the user's latest interactions in the data, validation and test
    ones included, as many as an evaluation's history holds (`SequenceDataset.latest_rows`). Where scores are cosines,
    both are L2-normalised: their dot product is the score. Those of E4SRec, whose dot product is the score, are as they
    are, and those of HLLMRanker as its head reads them.

    Args:
        run: of a model of this package that scores users' vectors with items', from ``load_run``.
        folder: made where it is missing; files of these names are overwritten.

    Raises:
        ConfigError: the disk is full or the folder cannot be written.
        ModelError: the model has no such vectors, as HLLMRanker with early fusion; nothing is written then.
    """
    folder, model, data, settings = Path(folder), run.model.eval(), run.dataset, RunKeys.of(run.config)
    if not isinstance(model, Factorised):
        raise ModelError(f"{settings.model} has no vectors of users and items to write")
    cosine = model.similarity == "cosine"
    finish = (lambda vectors: F.normalize(vectors, dim=-1)) if cosine else torch.nn.Identity()
    items = model.candidate_vectors()[1:]  # without the padding item's
    users, sequences = data.latest_sequences()
    steps = np.split(sequences, range(settings.eval_batch_size, len(sequences), settings.eval_batch_size))
    of_users = (model.user_vectors(data.latest_rows(step).to(settings.device)) for step in steps)
    first = next(of_users)  # a model that cannot compute them says so before there are files
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _write_rows(folder / "item_vectors.npy", (len(items), items.shape[1]), map(finish, [items]))
        _write_rows(folder / "user_vectors.npy", (len(users), items.shape[1]), map(finish, chain([first], of_users)))
        if beside := model.beside_vectors():
            arrays: dict[str, Any] = {name: array.cpu().numpy() for name, array in beside.items()}
            np.savez(folder / "beside.npz", **arrays)
    for name, field, ids in (("item", data.iid_field, np.arange(1, data.item_num)), ("user", data.uid_field, users)):
        write_text(folder / f"{name}_ids.txt", "".join(f"{token}\n" for token in data.id2token(field, ids)))


def _write_rows(path: Path, shape: tuple[int, int], blocks: Iterable[torch.Tensor]) -> None:
    """A float32 .npy file, block by block: a catalogue and its users may be larger than memory."""
    rows, begin = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=tuple(shape)), 0
    for block in blocks:
        rows[begin : begin + len(block)] = block.float().cpu().numpy()
        begin += len(block)
    rows.flush()
