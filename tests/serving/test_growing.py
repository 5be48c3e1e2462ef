"""Tables that grow, also while others read them."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.serving.growing import GrowingTable

STEPS = st.lists(st.one_of(st.integers(0, 900), st.lists(st.integers(0, 3), min_size=1, unique=True)), max_size=6)


@given(STEPS)
def test_rows_are_those_of_a_list(steps):
    wanted = [[float(row)] * 2 for row in range(4)]
    table = GrowingTable(torch.tensor(wanted))
    for number, step in enumerate(steps):
        held, before = table.rows, table.rows.tolist()
        if isinstance(step, int):
            added = [[100.0 + number, float(row)] for row in range(step)]
            table.append(torch.tensor(added).reshape(-1, 2))
            wanted += added
        else:
            table.replace(torch.tensor(step), torch.full((len(step), 2), -1.0 - number))
            wanted = [[-1.0 - number] * 2 if place in step else row for place, row in enumerate(wanted)]
        assert table.rows.tolist() == wanted and len(table) == len(wanted)
        assert held.tolist() == before, "who holds rows keeps them"


def test_the_first_rows_are_copied_and_room_is_left():
    first = torch.ones(3, 2)
    table = GrowingTable(first)
    first[:] = 7
    assert table.rows.tolist() == [[1.0, 1.0]] * 3
    place = table.rows.data_ptr()
    table.append(torch.zeros(500, 2))
    assert table.rows.data_ptr() == place, "nothing was copied"
    assert GrowingTable(torch.zeros(0, 3)).rows.shape == (0, 3)


def test_rows_may_be_written_where_they_stay():
    table = GrowingTable.to_fill(2, torch.ones(5, 3, dtype=torch.float64))
    assert table.rows.shape == (2, 3) and table.rows.dtype == torch.float64
    table.rows[:] = 4
    place = table.rows.data_ptr()
    table.append(torch.ones(3, 3))
    assert table.rows[:, 0].tolist() == [4.0, 4.0, 1.0, 1.0, 1.0] and table.rows.data_ptr() == place


def test_who_reads_while_rows_are_written_finds_those_before():
    seen = []

    class Watched(GrowingTable):
        def _with_room(self, wanted):
            store = super()._with_room(wanted)
            seen.append(self.rows)
            return store

    table = Watched(torch.ones(2, 3))
    table.append(torch.full((3000, 3), 2.0))
    table.replace(torch.tensor([1]), torch.full((1, 3), 5.0))
    assert list(map(len, seen)) == [0, 2, 3002]
    assert (seen[1] == 1).all() and (seen[2][:2] == 1).all() and (seen[2][2:] == 2).all()
    assert table.rows[:3, 0].tolist() == [1.0, 5.0, 2.0]
