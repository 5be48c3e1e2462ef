"""Runs that several processes share out."""

import threading

import pytest

from recbole_hllm.storage.locks import held
from recbole_hllm.tables import spread
from recbole_hllm.tables.spread import Job, make_all


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(spread, "_SECONDS", 0.01)


def jobs_in(folder, **after):
    return [Job(name, folder / name, after=frozenset(folder / other for other in others))
            for name, others in after.items()]  # fmt: skip


def test_one_process_makes_all_in_order(tmp_path):
    made = []

    def make(job, lock):
        with held(job.folder.with_name(f".{job.folder.name}.lock"), wait=False) as another:
            assert another is None, "it is held while the run is made"
        made.append(job.row)
        return {"model": job.row}

    rows = make_all(jobs_in(tmp_path, a=(), b=("a",), c=()), make)
    assert made == ["a", "b", "c"] and rows == {tmp_path / name: {"model": name} for name in made}


def test_what_others_have_is_waited_for_and_what_needs_it_comes_after(tmp_path, caplog):
    """Another process has ``a``, which ``b`` needs: ``c`` is made meanwhile."""
    caplog.set_level("INFO")
    made, jobs = [], jobs_in(tmp_path, a=(), b=("a",), c=())
    taken, go = threading.Event(), threading.Event()

    def other():
        with held(tmp_path / ".a.lock"):
            taken.set()
            go.wait(10)

    def make(job, lock):
        made.append(job.row)
        if job.row == "c":
            threading.Timer(0.05, go.set).start()
        return {}

    thread = threading.Thread(target=other)
    thread.start()
    taken.wait(10)
    make_all(jobs, make)
    thread.join()
    assert made == ["c", "a", "b"]
    assert caplog.text.count("other processes have the runs that are left, of a, b; waiting for them") == 1


def test_two_processes_never_make_a_run_at_the_same_time(tmp_path):
    """Each finds what the other has finished, as ``make`` looks for it."""
    jobs, inside, done = jobs_in(tmp_path, **{name: () for name in "abcdefgh"}), set(), []

    def make(job, lock):
        assert job.row not in inside
        inside.add(job.row)
        if not job.folder.is_file():
            done.append(job.row)
            job.folder.write_text("finished")
        inside.remove(job.row)
        return {"model": job.row}

    found = []
    threads = [threading.Thread(target=lambda: found.append(make_all(jobs, make))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list("abcdefgh") and len(found) == 3 and found[0] == found[1] == found[2]
