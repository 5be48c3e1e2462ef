"""Questions that are answered together."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

pytest.importorskip("fastapi")

from recbole_hllm.serving.service.batching import Batcher  # noqa: E402
from recbole_hllm.serving.service.refusal import Refusal  # noqa: E402


class Doubling:
    """Doubles numbers, once it may; odd ones are wrong."""

    def __init__(self):
        self.batches, self.may = [], Event()

    def __call__(self, numbers):
        self.may.wait(10)
        self.batches.append(list(numbers))
        return [ValueError(f"{number} is odd") if number % 2 else 2 * number for number in numbers]


def asked(numbers, most=4, room=100, answer=None):
    """Batches, and what was answered to each number."""
    answer = answer or Doubling()

    async def ask():
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(answer, thread, most, room)
            first = asyncio.create_task(batcher.ask(numbers[0]))
            await asyncio.sleep(0.05)
            others = [asyncio.create_task(batcher.ask(number)) for number in numbers[1:]]
            await asyncio.sleep(0.05)
            getattr(answer, "may", Event()).set()
            return await asyncio.gather(first, *others, return_exceptions=True)

    return getattr(answer, "batches", None), asyncio.run(ask())


def test_what_waits_is_answered_together_in_its_order():
    batches, answers = asked([0, 2, 4, 6, 8, 10, 12])
    assert batches == [[0], [2, 4, 6, 8], [10, 12]]
    assert answers == [0, 4, 8, 12, 16, 20, 24]


def test_a_wrong_question_alone_has_an_error():
    _, answers = asked([0, 2, 3, 4])
    assert [answers[0], answers[1], answers[3]] == [0, 4, 8]
    assert isinstance(answers[2], ValueError) and str(answers[2]) == "3 is odd"


def test_one_more_than_may_wait_is_refused():
    _, answers = asked([0, 2, 4, 6, 8], room=3)
    assert answers[:4] == [0, 4, 8, 12]
    assert isinstance(answers[4], Refusal) and answers[4].status == 503 and answers[4].headers == {"Retry-After": "1"}


def test_an_answer_that_fails_fails_its_batch_alone():
    def answer(numbers):
        if 2 in numbers:
            raise RuntimeError("broken")
        return [2 * number for number in numbers]

    _, answers = asked([0, 2, 4, 6], most=1, answer=answer)
    assert [answers[0], *answers[2:]] == [0, 8, 12] and isinstance(answers[1], RuntimeError)


def test_who_leaves_is_not_waited_for():
    answer = Doubling()

    async def ask():
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(answer, thread, 4, 10)
            gone, stays = (asyncio.create_task(batcher.ask(number)) for number in (2, 4))
            await asyncio.sleep(0.05)
            gone.cancel()
            answer.may.set()
            assert await stays == 8 and len(batcher) == 0
            return await batcher.ask(6)

    assert asyncio.run(ask()) == 12
