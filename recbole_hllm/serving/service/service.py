"""The service without HTTP: who answers, who changes the catalogue, and how a new export takes the old one's place."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from recbole_hllm.errors import ConfigError, UserError
from recbole_hllm.serving.requests import Request
from recbole_hllm.serving.service.batching import Batcher
from recbole_hllm.serving.service.journal import Entry, Journal
from recbole_hllm.serving.service.limits import Limits
from recbole_hllm.serving.service.loaded import Loaded, free, load
from recbole_hllm.serving.service.metrics import Metrics
from recbole_hllm.serving.service.reasons import reasons
from recbole_hllm.serving.service.refusal import Refusal, busy
from recbole_hllm.serving.service.replay import replay

_LOG = logging.getLogger(__name__)
# Changes of the catalogue that wait, and requests of what takes longer that are computed together.
_ROOM, _SLOW_BATCH = 16, 8
_NOT_FOUND, _CONFLICT, _UNAVAILABLE = 404, 409, 503
T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """A request, and whether the answer says why."""

    request: Request
    explain: bool = False


class Service:
    """Answers from an export, which another one may take the place of.

    Requests by id are scored in one thread. What takes longer has another one: texts, reasons, and changes of the
    catalogue, which so come one after the other.

    Args:
        folder: of the export, or a link to it.
        journal: folder of the changes; None: items are neither added nor removed.
        limits: what is taken at most.
        options: of ``Recommender.from_pretrained``.

    Raises:
        ModelError: there is no export, or a damaged one.
        ConfigError: the journal cannot be written, or lies in the export.
        DataError: the journal is damaged.
    """

    def __init__(
        self, folder: str | Path, journal: str | Path | None = None, limits: Limits | None = None, **options: Any
    ) -> None:
        self.folder, self.limits, self._options = Path(folder).expanduser(), limits or Limits(), options
        self.metrics = Metrics()
        self._loaded = load(self.folder, **options)
        self._journal = None if journal is None else Journal(self._journal_folder(Path(journal).expanduser()))
        self._take(self._loaded, {})
        self._quick, self._slow, self._loader = (ThreadPoolExecutor(1, name) for name in ("quick", "slow", "loader"))
        most, room = self.limits.batch, self.limits.queue
        self._by_ids: Batcher[Question, dict[str, Any]] = Batcher(self._answer, self._quick, most, room)
        self._others: Batcher[Question, dict[str, Any]] = Batcher(
            self._answer, self._slow, min(most, _SLOW_BATCH), room
        )
        self._changes, self._reloading = 0, False
        self.metrics.waiting.set_function(lambda: len(self._by_ids) + len(self._others))
        self.metrics.items.set_function(lambda: len(self._loaded.recommender.catalogue))

    def _journal_folder(self, folder: Path) -> Path:
        if folder.resolve().is_relative_to(self.folder.resolve()):
            raise ConfigError(f"journal: {folder} lies in the export, which stays as it is; name a folder beside it")
        return folder

    def close(self) -> None:
        """Ends the threads, and lets another service write the journal."""
        for thread in (self._quick, self._slow, self._loader):
            thread.shutdown()
        if self._journal is not None:
            self._journal.close()

    # ---- recommendations ----

    async def recommend(self, request: Request, explain: bool = False) -> dict[str, Any]:
        """The answer.

        Raises:
            Refusal: too many wait.
            UserError: as ``Recommender.recommend``.
        """
        lane = self._others if explain or request.texts else self._by_ids
        return await lane.ask(Question(request, explain))

    def _answer(self, questions: Sequence[Question]) -> list[dict[str, Any] | Exception]:
        """All from the same export; a wrong question alone has an error."""
        loaded = self._loaded
        self.metrics.batches.observe(len(questions))
        errors = [_wrong(loaded, question) for question in questions]
        right = [question for question, error in zip(questions, errors, strict=True) if error is None]
        try:
            found = iter(self._found(loaded, right))
        except Exception as error:
            return [error] if len(questions) == 1 else [self._answer([question])[0] for question in questions]
        return [next(found) if error is None else error for error in errors]

    def _found(self, loaded: Loaded, questions: Sequence[Question]) -> list[dict[str, Any]]:
        found = loaded.recommender.recommend_many([question.request for question in questions])
        answers = []
        for question, best in zip(questions, found, strict=True):
            items = [loaded.shown(item) for item in best]
            if question.explain:
                why = reasons(loaded, question.request, [item.id for item in best])
                items = [{**item, "why": of_item} for item, of_item in zip(items, why, strict=True)]
            answers.append({"items": items, "version": loaded.version})
        return answers

    def search(self, typed: str, limit: int) -> dict[str, Any]:
        """Items whose id or title begins with what is typed, or has it."""
        loaded = self._loaded
        return {"items": [loaded.item(number) for number in loaded.titles.search(typed, limit)]}

    def health(self) -> dict[str, Any]:
        """What is served."""
        return {"ready": True, **self._loaded.described(), "takes_items": self._journal is not None}

    # ---- changes of the catalogue ----

    async def add(self, items: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
        """Adds items; when it returns they are on the disk, and recommended.

        Raises:
            Refusal: there is no journal, or it cannot be written, or too many wait.
            UserError: as ``Recommender.add_items``.
        """
        return await self._change(lambda: self._add(items))

    async def remove(self, item: str) -> dict[str, Any]:
        """Removes an item; when it returns that is on the disk.

        Raises:
            Refusal: there is no such item, or no journal, or it cannot be written, or too many wait.
        """
        return await self._change(lambda: self._remove(item))

    async def _change(self, change: Callable[[], T]) -> T:
        if self._journal is None:
            raise Refusal(_CONFLICT, "this service keeps its items; start it with --journal=FOLDER to change them")
        if self._changes >= _ROOM:
            raise busy()
        self._changes += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._slow, change)
        except OSError as error:
            _LOG.error(f"the journal cannot be written: {error}")
            raise Refusal(
                _UNAVAILABLE, "nothing was changed: the journal cannot be written; the log of the service says why"
            ) from error
        finally:
            self._changes -= 1

    def _add(self, items: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
        assert self._journal is not None, "who calls has looked"
        loaded = self._loaded
        vectors = loaded.recommender.vectors_of(items)
        self._journal.add(items, vectors, loaded.version)
        loaded.recommender.add_items(items, vectors)
        loaded.titles.add(items)
        self.metrics.changes.labels("added").inc(len(items))
        return {"added": list(items), "items": len(loaded.recommender.catalogue)}

    def _remove(self, item: str) -> dict[str, Any]:
        assert self._journal is not None, "who calls has looked"
        recommender = self._loaded.recommender
        number = recommender.catalogue.number(item)
        if number is None or not recommender.catalogue.listed[number]:
            raise Refusal(_NOT_FOUND, f"there is no item {item!r} in the catalogue", "item")
        self._journal.remove([item])
        recommender.remove_items([item])
        self.metrics.changes.labels("removed").inc()
        return {"removed": item, "items": len(recommender.catalogue)}

    # ---- a new export ----

    async def reload(self) -> dict[str, Any]:
        """Loads what is in the folder now, beside what is served, and then serves it.

        Raises:
            Refusal: it is damaged, and what was served still is; or another reload goes on.
        """
        if self._reloading:
            raise Refusal(_CONFLICT, "a reload goes on already; ask for /health, whose version says when it is done")
        self._reloading = True
        loop = asyncio.get_running_loop()
        try:
            loaded, anew = await loop.run_in_executor(self._loader, self._load)
            await loop.run_in_executor(self._slow, self._take, loaded, anew)
            await loop.run_in_executor(self._loader, free)
        except Exception as error:
            self.metrics.reloads.labels("refused").inc()
            _LOG.error(f"reload: refused, and the old export stays: {error}", exc_info=not isinstance(error, UserError))
            message = "the new export was refused, and the old one stays; the log of the service says why"
            raise Refusal(_CONFLICT, message) from error
        finally:
            self._reloading = False
        self.metrics.reloads.labels("done").inc()
        _LOG.info(f"reload: {loaded.version} is served")
        return self.health()

    def _load(self) -> tuple[Loaded, dict[str, Tensor]]:
        """Beside all else: a new export with what the journal says now, and the vectors that it has there."""
        loaded = load(self.folder, **self._options)
        return loaded, self._told(loaded, {} if self._journal is None else self._journal.entries())

    def _told(self, loaded: Loaded, entries: Mapping[str, Entry]) -> dict[str, Tensor]:
        anew = replay(entries, loaded.recommender, loaded.version)
        loaded.titles.add(item for item in entries if item in loaded.recommender.catalogue)
        return anew

    def _take(self, loaded: Loaded, anew: Mapping[str, Tensor]) -> None:
        """Serves an export, while the catalogue stays; what was changed since it was loaded is changed in it first."""
        if self._journal is not None:
            entries = self._journal.entries()
            anew = {**anew, **self._told(loaded, entries)}
            if anew or self._journal.is_long:
                version = loaded.version
                own = {item: replace(entries[item], vector=vector, export=version) for item, vector in anew.items()}
                self._journal.rewrite({**entries, **own})
        self._loaded = loaded
        self.metrics.export.info({"version": loaded.version, "model": str(loaded.recommender.manifest.get("model"))})


def _wrong(loaded: Loaded, question: Question) -> UserError | None:
    """What is wrong with a question."""
    try:
        loaded.recommender.check(question.request)
    except UserError as error:
        return error
    return None
