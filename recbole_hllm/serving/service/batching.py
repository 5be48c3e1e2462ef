"""Questions that arrive together are answered together."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from recbole_hllm.serving.service.refusal import busy

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Batcher(Generic[Question, Answer]):
    """Answers questions in a thread, all that wait at once: while a batch is computed, the next one gathers, so that
    batches grow with the load, and a question on its own waits for nobody.

    Args:
        answer: questions -> an answer each, or the error of a question that is wrong; called in the thread.
        thread: of one worker.
        most: questions of a batch.
        room: questions that wait.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], Sequence[Answer | Exception]],
        thread: ThreadPoolExecutor,
        most: int,
        room: int,
    ) -> None:
        self._answer, self._thread, self._most, self._room = answer, thread, most, room
        self._waiting: deque[tuple[Question, asyncio.Future[Answer]]] = deque()
        self._work: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def ask(self, question: Question) -> Answer:
        """The answer.

        Raises:
            Refusal: as many wait as may.
            Exception: what is wrong with this question.
        """
        if len(self._waiting) >= self._room:
            raise busy()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._answer_all())
        return await future

    async def _answer_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            answers: Sequence[Answer | Exception]
            try:
                answers = await loop.run_in_executor(self._thread, self._answer, [question for question, _ in batch])
            except Exception as error:
                answers = [error] * len(batch)
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.cancelled():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
