"""The first signal is noted, the second ends."""

import os
import signal
import threading

import pytest

from recbole_hllm.training.interruption import Interruption


@pytest.mark.parametrize("number, end", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_the_second_signal_ends_at_once(number, end, capfd):
    before, interruption = signal.getsignal(number), Interruption()
    with pytest.raises(end) as ended, interruption:
        signal.raise_signal(number)
        assert interruption.asked == number
        assert "stopping once this step is saved" in capfd.readouterr().err
        signal.raise_signal(number)
    assert signal.getsignal(number) is before
    assert end is KeyboardInterrupt or ended.value.code == 143


def test_a_closed_pipe_does_not_end_the_step():
    kept, (reads, writes) = os.dup(2), os.pipe()
    os.close(reads)
    os.dup2(writes, 2)  # a pipe that nobody reads
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGINT)
        assert interruption.asked == signal.SIGINT
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(writes)


def test_a_signal_of_an_earlier_training_is_forgotten():
    interruption = Interruption()
    with interruption:
        signal.raise_signal(signal.SIGTERM)
    with interruption:
        assert interruption.asked is None


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGINT)
            assert interruption.asked is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_takes_no_signals():
    seen = []

    def train():
        with Interruption():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [before]
