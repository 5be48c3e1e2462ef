"""Processes of one run: what they send each other, and that a failure of one ends all."""

import json
import os
import signal
import socket
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist
from launched import free_port, launch

from recbole_hllm import cli, meeting
from recbole_hllm.errors import ConfigError, UserError
from recbole_hllm.processes import Processes, alone, begin, current, end, ending_together, tell

CPU = torch.device("cpu")


def say_all():
    p = begin(CPU, 1)
    said = {"rank": p.rank, "share": list(p.share(7)), "sum": p.sum(p.rank + 0.5), "first": p.first_of(["a", p.rank])}
    said["gather"] = p.gather({"rank": p.rank, "text": "é" * (5 * p.rank)})
    arrays = [np.full((2, 3), p.rank, np.float32), np.arange(p.rank, dtype=np.int64)][: 1 + p.rank]
    said["lists"] = [[[a.dtype.str, a.tolist()] for a in theirs] for theirs in p.gather_lists(arrays)]
    said["none"] = [len(theirs) for theirs in p.gather_lists([np.ones(3)] if p.rank else [])]
    said["array"] = p.first_array(np.arange(10.0) if p.is_first else None).tolist()
    said["led"] = p.led(
        lambda numbers: np.array([10 * number + p.rank for number in numbers]),
        lambda ask: [np.stack(ask(numbers)).tolist() for numbers in ([1, 2], [3])],
    )
    with alone():
        said["alone"] = [current().world_size, current().gather(p.rank)]
    said["again"] = begin(CPU) is p
    try:
        with p.together():
            if p.rank == 1:
                raise UserError("the disk is full")
        said["together"] = None
    except UserError as error:
        said["together"] = str(error)
    p.wait()
    end()
    print(json.dumps({**said, "after": current().world_size}))


@pytest.fixture(scope="module")
def said():
    ended = launch(say_all)
    assert [process.code for process in ended] == [0, 0], ended
    return [json.loads(process.out) for process in ended]


def test_values_of_all(said):
    for rank, own in enumerate(said):
        assert own["rank"] == rank and own["sum"] == 2.0 and own["first"] == ["a", 0] and own["again"]
        assert own["gather"] == [{"rank": 0, "text": ""}, {"rank": 1, "text": "ééééé"}]
        assert own["alone"] == [1, [rank]] and own["after"] == 1
    assert [own["share"] for own in said] == [[0, 1, 2], [3, 4, 5, 6]]


def test_arrays_of_all(said):
    ones, zeros = [[1.0] * 3] * 2, [[0.0] * 3] * 2
    for own in said:
        assert own["lists"] == [[["<f4", zeros]], [["<f4", ones], ["<i8", [0]]]]
        assert own["none"] == [0, 1]
        assert own["array"] == list(range(10))
    assert [own["led"] for own in said] == [[[[10, 20], [11, 21]], [[30], [31]]], None]


def test_what_fails_for_one_fails_for_all(said):
    assert [own["together"] for own in said] == ["process 1 of 2: the disk is full", "the disk is full"]


def test_one_process_asks_nobody():
    one, values = Processes(), np.arange(3)
    assert one.gather("x") == ["x"] and one.first_of(3) == 3 and one.sum(2) == 2 and one.share(5) == range(5)
    assert one.gather_lists([values])[0][0] is values and one.first_array(values) is values
    assert one.led(lambda numbers: np.array(numbers) + 1, lambda ask: ask([1, 2])[0].tolist()) == [2, 3]
    one.wait()
    with pytest.raises(UserError, match="^wrong$"), one.together():
        raise UserError("wrong")
    with pytest.raises(KeyError), ending_together():
        raise KeyError
    assert tell(UserError("x")) is None
    with alone():
        assert current() == one


def test_shares_are_all_of_it():
    for size in range(1, 5):
        for number in range(10):
            shares = [Processes(rank, size).share(number) for rank in range(size)]
            assert [place for share in shares for place in share] == list(range(number))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    "variables, message",
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: 'two' is not a number of processes"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, and RANK is not set: start several processes with torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "x"}, "RANK is 'x', which is no number"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "MASTER_PORT is not set"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_PORT": "1"}, "RANK: 2 of WORLD_SIZE 2"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_PORT": "65536"}, "MASTER_PORT: 65536 is no port"),
    ],
)
def test_wrong_variables(variables, message, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        begin(CPU, 0.01)


# ---- failures: programs whose verb is a function here ----


def program(verb):
    """What the command line does with a verb."""
    cli._verb = lambda word: type("Verb", (), {"main": staticmethod(lambda words: verb())})
    return cli.main(["run"])


def fails(how):
    @ending_together()
    def verb():
        processes = begin(CPU, 0.05 if how == "late" else 1)
        processes.wait()
        if processes.rank == 1 or how == "both":
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "late":
                time.sleep(6)
            else:
                raise {
                    "user": UserError("the loss is not a number"),
                    "both": UserError("the loss is not a number"),
                    "bug": ZeroDivisionError("a bug"),
                    "stop": KeyboardInterrupt(),
                    "term": SystemExit(143),
                }[how]
        processes.wait()

    return program(verb)


def failing(how):
    ended = launch(fails, how)
    return [process.code for process in ended], [line for process in ended for line in process.said]


@pytest.mark.parametrize("how", ["user", "both"])
def test_an_error_ends_all_with_one_message(how):
    assert failing(how) == ([2, 2], ["error: the loss is not a number"])


def test_signals_end_all():
    assert failing("stop") == ([130, 130], ["stopped"])
    assert failing("term") == ([143, 143], [])


def test_a_bug_of_one_is_shown_once():
    codes, printed = failing("bug")
    assert codes == [1, 1] and printed[-1] == "ZeroDivisionError: a bug"
    assert sum("Traceback" in line for line in printed) == 1


def first_fails(other):
    """The first process, at whose side the store is, keeps its connections open when it fails, as DDP does."""

    @ending_together()
    def verb():
        processes = begin(CPU, 1)
        group = dist.group.WORLD
        processes.wait()
        if processes.is_first:
            raise UserError(f"{group.size()} processes are too few")
        other()

    return program(verb)


def test_a_process_that_waits_hears_why_it_ends():
    ended = launch(first_fails, lambda: dist.all_reduce(torch.ones(1)))
    assert [process.code for process in ended] == [2, 2]
    assert [line for process in ended for line in process.said] == ["error: 2 processes are too few"]


def test_a_process_that_computes_is_ended(monkeypatch):
    monkeypatch.setattr(meeting, "_SECONDS_TO_END", 0.2)
    begun = time.monotonic()
    ended = launch(first_fails, lambda: time.sleep(60))
    assert [process.code for process in ended] == [2, 2] and time.monotonic() - begun < 20
    assert [line for process in ended for line in process.said] == ["error: 2 processes are too few"]


def test_a_killed_process_ends_the_other():
    codes, printed = failing("kill")
    assert codes == [2, -signal.SIGKILL]
    assert len(printed) == 1 and printed[0].startswith("error: another process is gone, killed or out of memory")


def test_a_process_that_does_not_come_ends_the_other():
    codes, printed = failing("late")
    assert codes == [2, 2]
    assert len(printed) == 1 and printed[0].startswith("error: another process did not come in time (process_minutes)")


def meets():
    return program(lambda: begin(CPU, 0.05) and 0)


def test_processes_that_do_not_come_are_named():
    (one,) = launch(meets, world_size=3, ranks=[0])
    assert one.code == 2
    assert one.said == [
        "error: WORLD_SIZE: 3 processes are expected, and number 1, 2 did not come within 0.05 minutes "
        "(process_minutes)"
    ]


def test_a_port_in_use():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (one,) = launch(meets, ranks=[0], port=port)
    assert one.code == 2
    assert one.said == [
        f"error: MASTER_PORT: {port} of localhost is in use: another run may have it; choose another one, torchrun "
        "--master_port=PORT"
    ]


def test_nobody_at_the_port():
    port = free_port()
    (one,) = launch(meets, ranks=[1], port=port)
    assert one.code == 2 and f"error: MASTER_PORT: {port} of localhost is not where the first process is" in one.err


def test_a_port_at_which_another_program_says_nothing():
    with socket.socket() as silent:
        silent.bind(("localhost", 0))
        silent.listen()
        port = silent.getsockname()[1]
        (one,) = launch(meets, ranks=[1], port=port, seconds=30)
    assert one.code == 2
    assert one.said == [
        f"error: MASTER_PORT: {port} of localhost is silent for 0.05 minutes (process_minutes): another program may "
        "listen there"
    ]


def test_two_of_one_number():
    ended = launch(meets, world_size=3, ranks=[0, 1, 1])
    assert [process.code for process in ended] == [2, 2, 2]
    said = [line for process in ended for line in process.said]
    assert said == ["error: RANK: two processes are number 1; each needs a number of its own"]
