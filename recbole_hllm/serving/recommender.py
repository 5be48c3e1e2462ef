"""Recommender: an exported model in use, for histories, new items and new users."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recbole_hllm.data.texts.template import TextTemplate
from recbole_hllm.errors import Damaged, DataError, ModelError
from recbole_hllm.serving import folder as files
from recbole_hllm.serving.best_items import best_items
from recbole_hllm.serving.catalogue import Catalogue
from recbole_hllm.serving.index import ExactIndex, Index
from recbole_hllm.serving.index_building import ready_index
from recbole_hllm.serving.requests import Recommended, Request
from recbole_hllm.serving.rows import FURTHER, Rows
from recbole_hllm.serving.saving import local_folder, push, save
from recbole_hllm.serving.served import Served, ServedBlend
from recbole_hllm.serving.text_encoder import TextEncoder


class Recommender:
    """Recommends items after a history.

    Several threads may ask at the same time; one of them at a time adds or removes items.

    Args:
        served: what scores.
        catalogue: its items, in the order of the vectors.
        manifest: of the export.
        encoder: of texts, where new items can be encoded.
        histories: of known users.
        index: that finds the best items; None: all are scored.

    Attributes:
        folder: it was read from; None: it was not.
        is_changed: items were added, changed or removed since.
    """

    def __init__(
        self,
        served: Served,
        catalogue: Catalogue,
        manifest: Mapping[str, Any],
        encoder: TextEncoder | None = None,
        histories: files.UserHistories | None = None,
        index: Index | None = None,
    ) -> None:
        self.served, self.catalogue, self.manifest, self.encoder = served, catalogue, dict(manifest), encoder
        self.histories = histories or files.UserHistories()
        if self.histories.largest >= len(catalogue.ids):
            raise Damaged(f"histories of users have item {self.histories.largest} of {len(catalogue.ids) - 1}")
        self.index: Index = index or ExactIndex(served)
        self._template = TextTemplate(**manifest["template"]) if manifest.get("template") else None
        self._writing = threading.Lock()
        self.folder: Path | None = None
        self.is_changed = False

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str = "cpu", precision: str = "float32", index: str = "exact"
    ) -> "Recommender":
        """Reads an export.

        Args:
            folder: that ``recbole-hllm export`` or ``save_pretrained`` wrote; or ``user/name`` of a repository of the
                Hugging Face Hub, of which the files of an export alone are downloaded.
            device: torch's name of where users are computed and items scored.
            precision: of the user model's products, ``float32`` or ``bfloat16``; in the latter a score depends a little
                on which requests are computed together.
            index: what finds the best items: exact, flat, ivf or hnsw. But for exact, it is that of the folder, built
                and written first where there is none of this kind or the vectors are other ones.

        Raises:
            ModelError: there is no export in the folder, or a damaged one; or an index finds too few of the best items.
            ConfigError: there is no such index.
            MissingExtra: the index needs faiss, which is not installed.
        """
        folder = local_folder(folder)
        manifest = files.read_manifest(folder)
        if manifest["served"] is None:
            raise ModelError(f"{folder} recommends nothing: {manifest.get('unserved')}")
        ids, fields = files.read_items(folder)
        served = files.read_served(folder, manifest["served"], precision, device)
        if isinstance(served, files.ServedPairs | files.ServedTable):
            raise ModelError(f"{folder}: a table of pairs is a part of a Blend, and nothing is exported of it alone")
        if len(served.items) != len(ids) + 1:
            raise ModelError(f"{folder}: vectors of {len(served.items) - 1} items and lines of {len(ids)}")
        encoder = TextEncoder(folder / files.ITEM_ENCODER, device) if (folder / files.ITEM_ENCODER).is_dir() else None
        histories = files.read_histories(folder)
        finder = None if index == "exact" else ready_index(folder, served, histories, index)
        found = cls(served, Catalogue(ids, fields), manifest, encoder, histories, finder)
        found.catalogue.remove(found.catalogue.numbers(manifest.get("removed", ()), f"{folder}: removed"))
        found.folder = folder
        return found

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes a folder that ``from_pretrained`` makes the same Recommender of, with all that was added, changed and
        removed; see ``saving.save``.

        Args:
            folder: a new or an empty one; it is there once it is whole.
        """
        with self._writing:
            return save(self, Path(folder).expanduser())

    def push_to_hub(
        self, repo_id: str, *, private: bool = True, token: str | None = None, histories: bool = False
    ) -> str:
        """Writes a repository of the Hugging Face Hub, with the model card; arguments and errors as of ``saving.push``.

        Returns:
            Its address.
        """
        with self._writing:
            return push(self, repo_id, private=private, token=token, histories=histories)

    # ---- recommendations ----

    def recommend(
        self,
        items: Sequence[str] = (),
        texts: Sequence[str | Mapping[str, str]] = (),
        user: str | None = None,
        times: Sequence[float] | None = None,
        at: float | None = None,
        k: int = 10,
        exclude: Sequence[str] = (),
        among: Sequence[str] | None = None,
        filter_seen: bool = True,
    ) -> list[Recommended]:
        """The best items after one history; arguments as of `Request`.

        Returns:
            k items, the best first; fewer where there are not so many.

        Raises:
            DataError: an id is not known, or the history is empty.
            ConfigError: k is no positive number.
            ModelError: the model cannot read what is given: texts, or none where it reads times.
        """
        return self.recommend_many([Request(items, texts, user, times, at, k, exclude, among, filter_seen)])[0]

    def recommend_frame(self, histories: Mapping[str, Sequence[str]], k: int = 10, **options: Any) -> pd.DataFrame:
        """The best items of several users, in columns ``user_id``, ``item_id``, ``score`` and ``rank`` from 1.

        Args:
            histories: user -> ids of the items, the oldest first.
            k: how many are wanted of each.
            options: of every `Request`.
        """
        found = self.recommend_many([Request(items=items, k=k, **options) for items in histories.values()])
        lines = [
            (user, item.id, item.score, rank)
            for user, items in zip(histories, found, strict=True)
            for rank, item in enumerate(items, start=1)
        ]
        return pd.DataFrame(lines, columns=["user_id", "item_id", "score", "rank"])

    def recommend_many(self, requests: Sequence[Request]) -> list[list[Recommended]]:
        """Answers to several requests, which are read and scored together; see ``recommend``."""
        if not requests:
            return []
        rows, further = self.rows_of(requests)
        seen = [set(row[:length]) for row, length in zip(rows.items.tolist(), rows.lengths.tolist(), strict=True)]
        blocked = [self._blocked(request, own) for request, own in zip(requests, seen, strict=True)]
        found = best_items(self, rows, further, requests, blocked)
        return [self._shown(numbers, scores) for numbers, scores in found]

    def _shown(self, numbers: np.ndarray, scores: np.ndarray) -> list[Recommended]:
        ids, fields = self.catalogue.ids, self.catalogue.fields
        return [
            Recommended(ids[number], float(score), fields[number])
            for number, score in zip(numbers.tolist(), scores.tolist(), strict=True)
        ]

    # ---- what is asked ----

    def rows_of(self, requests: Sequence[Request]) -> tuple[Rows, Tensor | None]:
        """Histories as numbers, and vectors of the texts in them, whose numbers begin with ``FURTHER``; errors are
        those of ``recommend``."""
        histories: list[list[int]] = []
        times: list[Sequence[float]] = []
        texts: list[str] = []
        for request in requests:
            history, seconds, own = self._history_of(request, FURTHER + len(texts))
            histories.append(history)
            times.append(seconds)
            texts += own
        now, at = time.time(), None
        if self.served.reads_times:
            at = [now if request.at is None else request.at for request in requests]
        rows = Rows.of(histories, times if self.served.reads_times else None, at).to(self.served.items.device)
        return rows, self._encoded(texts) if texts else None

    def check(self, request: Request) -> None:
        """Raises what ``recommend`` would of a wrong request; computes nothing."""
        self._history_of(request, FURTHER)
        if request.among is not None:
            self.catalogue.numbers(request.among, "among")
        if request.texts:
            self._refuse_without_encoder()

    def _history_of(self, request: Request, first: int) -> tuple[list[int], Sequence[float], list[str]]:
        """Numbers of a history, those of its texts from ``first`` on; seconds of each where read; its texts."""
        stored, stored_times = ([], []) if request.user is None else self.histories.of_user(request.user)
        texts = [self.text_of(text) for text in request.texts]
        given = [*self.catalogue.numbers(request.items, "items"), *range(first, first + len(texts))]
        history = [*stored, *given]
        if not history:
            raise DataError("the history is empty: give items, texts, or a user with a history")
        times = [*stored_times, *_times_of(request, len(given))] if self.served.reads_times else ()
        return history, times, texts

    def names_of(self, numbers: Sequence[int], request: Request) -> list[str]:
        """Ids of items of a request's history; of texts without an id the texts."""
        ids, texts = self.catalogue.ids, list(map(self.text_of, request.texts))
        return [ids[number] if number < FURTHER else texts[number - FURTHER] for number in numbers]

    def _blocked(self, request: Request, seen: set[int]) -> set[int]:
        excluded = {number for item in request.exclude if (number := self.catalogue.number(item)) is not None}
        return excluded | seen if request.filter_seen else excluded

    # ---- items ----

    def text_of(self, fields: str | Mapping[str, str]) -> str:
        """The text that the model reads of an item's fields; one that is a text already stays as it is.

        Raises:
            ModelError: the model reads no texts.
            DataError: none of its fields is given, or the text is empty.
        """
        if self._template is None:
            raise ModelError(f"{self.manifest.get('model')} knows items by id and reads no texts; export one that does")
        if isinstance(fields, str):
            if not fields.strip():
                raise DataError("texts: a text is empty; leave it out")
            return fields
        text, keys = self._template.text_of(fields), self._template.text_keys
        if text == self._template.item_prompt:
            raise DataError(f"texts: none of the fields {', '.join(keys)} is given, which the model reads")
        return text

    def _encoded(self, texts: Sequence[str]) -> Tensor:
        encoder = self._refuse_without_encoder()
        return encoder.encode(texts).to(self.served.items.device)

    def _refuse_without_encoder(self) -> TextEncoder:
        """The encoder; ModelError where new texts cannot be read."""
        if isinstance(self.served, ServedBlend):
            raise ModelError("a blend has parts that know items by id: texts and new items have no vectors in these")
        if self.encoder is None:
            raise ModelError(f"{self.manifest.get('model')} cannot read new texts: the export has no item_encoder")
        return self.encoder

    def vectors_of(self, items: Mapping[str, Mapping[str, str]]) -> dict[str, Tensor]:
        """(C,) vectors, as histories hold them, of those items that are new or have another text than they had.

        Raises:
            ModelError: the model reads no texts.
            DataError: none of an item's fields is one that the model reads.
        """
        if not (changed := self.new_or_changed(items)):
            return {}
        texts = [self.text_of(items[item]) for item in changed]
        return dict(zip(changed, self._encoded(texts), strict=True))

    def new_or_changed(self, items: Mapping[str, Mapping[str, str]]) -> list[str]:
        """Ids of those that are new, or whose text, which the model reads of the fields, is another than it was."""
        catalogue, template = self.catalogue, self._template
        text: Callable[[Mapping[str, str]], str] = template.text_of if template else lambda fields: ""
        return [
            item
            for item, fields in items.items()
            if (number := catalogue.number(item)) is None or text(catalogue.fields[number]) != text(fields)
        ]

    def add_items(
        self, items: Mapping[str, Mapping[str, str]], vectors: Mapping[str, Tensor] | None = None
    ) -> None:
        """Encodes items and lists them; who asks from now on may be recommended them.

        Args:
            items: id -> fields. A known id gets these fields, and where their text is another one another vector; it is
                listed again where it was removed.
            vectors: what ``vectors_of`` gave; items that have none in it are encoded now.

        Raises:
            ModelError: the model reads no texts.
            DataError: none of an item's fields is one that the model reads.
        """
        given = vectors or {}
        vectors = {**given, **self.vectors_of({item: items[item] for item in items if item not in given})}
        with self._writing:
            if vectors:
                self._write_vectors(vectors)
            self.is_changed = self.is_changed or bool(items)
            for item, fields in items.items():
                (self.catalogue.change if item in self.catalogue else self.catalogue.add)(item, fields)

    def _write_vectors(self, vectors: Mapping[str, Tensor]) -> None:
        """Of new items behind all others, of known ones in their places."""
        served, known = self.served, [item for item in vectors if item in self.catalogue]
        assert not isinstance(served, ServedBlend), "it has no vectors of new items"
        if known:
            numbers = torch.tensor(self.catalogue.numbers(known, "items"), device=served.items.device)
            self.index.changed(numbers)
            served.replace(numbers, torch.stack([vectors[item] for item in known]).to(served.items.device))
        if new := [item for item in vectors if item not in self.catalogue]:
            served.add(torch.stack([vectors[item] for item in new]).to(served.items.device))

    def remove_items(self, items: Iterable[str]) -> None:
        """Takes items off the list: they are recommended no more, and stay readable in histories.

        Raises:
            DataError: an id is not known.
        """
        with self._writing:
            self.catalogue.remove(self.catalogue.numbers(items, "items"))
            self.is_changed = True


def _times_of(request: Request, wanted: int) -> Sequence[float]:
    """Of the items and texts of a request.

    Raises:
        DataError: there are not so many.
    """
    times = request.times or ()
    if len(times) != wanted:
        raise DataError(f"times: this model reads the time of each item: {wanted} are given, with {len(times)} times")
    return times
