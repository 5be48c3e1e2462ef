"""What is served, against plain loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_served import N_ITEMS, WIDTH, blend, hstu, markov, random_table, sasrec, slow_scores, table, z_scores

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.user_models.mean import MeanUser
from recbole_hllm.serving import served_z_scores
from recbole_hllm.serving.rows import FURTHER, Rows
from recbole_hllm.serving.served import ServedBlend, ServedTable, ServedVectors
from recbole_hllm.serving.served_z_scores import ServedZScores
from recbole_hllm.serving.served_z_scores import z_scores as z_scores_of

HISTORIES = st.lists(st.lists(st.integers(1, N_ITEMS), min_size=1, max_size=7), min_size=1, max_size=4)
PLAIN, BLEND, TABLE, Z_SCORES = sasrec(), blend(), table(), z_scores()


def scores_of(served, rows):
    if isinstance(served, ServedTable) or getattr(served, "scores_all", False):
        return served.scores(rows)[:, 1:]
    scores = served.users(rows) @ served.items.T
    if (beside := served.beside(rows)) is not None:
        beside.add_to(scores)
    return scores[:, 1:]


def assert_slow(served, histories, times=None, at=None):
    rows = Rows.of(histories, times, at)
    each = zip(histories, times or [None] * len(histories), at or [None] * len(histories), strict=True)
    wanted = torch.tensor([list(slow_scores(served, *one).values()) for one in each])
    torch.testing.assert_close(scores_of(served, rows), wanted, rtol=1e-5, atol=1e-5)


@given(HISTORIES)
def test_rows_together_are_rows_alone(histories):
    assert_slow(PLAIN, histories)


@given(HISTORIES)
def test_a_blend_is_the_weighted_sum_of_its_parts(histories):
    assert_slow(BLEND, histories)


@given(HISTORIES)
def test_a_table_adds_what_each_item_of_the_whole_history_gives(histories):
    assert_slow(TABLE, histories)


@given(HISTORIES)
def test_z_scores_are_those_of_each_parts_scores_of_all_items(histories):
    assert_slow(Z_SCORES, histories)


def test_z_scores_of_equal_scores_say_nothing():
    alike = ServedVectors(MeanUser(), torch.ones(N_ITEMS + 1, 2), cosine=False, length=3)
    nothing = ServedTable(torch.zeros(N_ITEMS + 1, N_ITEMS + 1))
    served = ServedZScores([alike, nothing], torch.tensor([[0.5, 0.5]]), [], 3)
    assert not scores_of(served, Rows.of([[1, 2], [3]])).any()
    assert z_scores_of(torch.tensor([[9.0, 2, 2, 2]])).tolist()[0][1:] == [0, 0, 0]


@pytest.mark.parametrize("level", [0.1, -7.77, 1e5])
def test_scores_that_differ_by_rounding_alone_say_nothing(level):
    """All items have one vector, and its products are equal but for rounding. The other part decides."""
    vector = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(3))
    collapsed = ServedVectors(MeanUser(), (level * vector).repeat(N_ITEMS + 1, 1), cosine=False, length=4)
    rows = Rows.of([[1, 2, 5], [3], [7, 8, 9, 10]])
    for parts in ([collapsed, PLAIN], [collapsed, TABLE]):
        alone = scores_of(ServedZScores(parts[1:], torch.ones(1, 1), [], 4), rows)
        both = scores_of(ServedZScores(parts, torch.tensor([[0.5, 0.5]]), [], 4), rows)
        torch.testing.assert_close(both, alone / 2, rtol=1e-5, atol=1e-5)
    noise = level * (1 + 1e-7 * torch.randn(2, 1682, generator=torch.Generator().manual_seed(4)))
    assert not z_scores_of(noise).any()


def test_a_catalogue_of_one_item():
    one = ServedVectors(MeanUser(), torch.randn(2, 3), cosine=False, length=4)
    blend_ = ServedZScores([one, ServedTable(torch.ones(2, 2))], torch.tensor([[0.5, 0.5]]), [], 4)
    assert scores_of(blend_, Rows.of([[1]])).tolist() == [[0.0]]


def test_the_spread_of_many_items_is_summed_in_blocks(monkeypatch):
    items, users = random_table(1, 50, 6), torch.randn(4, 6)
    monkeypatch.setattr(served_z_scores, "_AT_ONCE", 7)
    mean, less = served_z_scores.Spread(items)(users)
    scores = (users @ items[1:].T).double()
    torch.testing.assert_close(mean, scores.mean(1, keepdim=True), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(1 / less, scores.std(1, correction=0, keepdim=True), rtol=1e-5, atol=1e-6)


def test_who_scores_all_items_has_no_use_for_an_index():
    assert Z_SCORES.scores_all and ServedBlend([TABLE], torch.ones(1, 1), [], 1).scores_all
    assert not BLEND.scores_all and not ServedZScores([PLAIN, hstu()], torch.ones(1, 2), [], 4).scores_all
    assert ServedZScores([PLAIN, hstu()], torch.ones(1, 2), [], 4).beside(Rows.of([[1]])) is None
    assert (PLAIN.longest, BLEND.longest) == (4, 5) and Z_SCORES.longest > 10**9


def test_times_are_read():
    histories, times = [[1, 2, 3, 4, 5], [6]], [[0.0, 10.0, 1000.0, 5000.0, 1e6], [3.0]]
    assert_slow(hstu(), histories, times, [2e6, 1e9])
    rows = Rows.of(histories, times, [2e6, 1e9])
    later = Rows.of(histories, times, [2e6 + 1e7, 1e9])
    assert not torch.equal(hstu().users(rows)[0], hstu().users(later)[0])
    for given_ in (Rows.of(histories), Rows.of(histories, times)):
        with pytest.raises(ModelError, match="reads times"):
            hstu().users(given_)


def test_cosines_are_products_of_directions():
    table = random_table(3)
    served = ServedVectors(MeanUser(), table, cosine=True, length=2)
    rows = Rows.of([[1, 2, 3]])
    mean = (table[2] + table[3]) / 2
    wanted = torch.nn.functional.cosine_similarity(mean[None], table[1:], dim=-1)
    torch.testing.assert_close(scores_of(served, rows)[0], wanted)
    assert torch.equal(served.scored, table) and served.items.norm(dim=1)[1:].allclose(torch.ones(N_ITEMS))


def test_what_is_read_may_differ_from_what_is_scored():
    scored, read = random_table(3), random_table(4)
    served = ServedVectors(MeanUser(), scored, read, cosine=False, length=3)
    torch.testing.assert_close(served.users(Rows.of([[2, 5]]))[0], (read[2] + read[5]) / 2)
    assert torch.equal(served.items, scored) and not served.reads_scored


def test_padding_has_no_vector_whatever_the_model_left_there():
    table = random_table(3)
    table[0] = 99
    served = ServedVectors(MeanUser(), table, cosine=False, length=3)
    assert not served.items[0].any() and served.users(Rows.of([[1], [1, 2, 3]]))[0].allclose(table[1])
    assert table[0, 0] == 99, "the model's own is left alone"


@pytest.mark.parametrize("cosine", [False, True])
def test_tables_may_begin_with_item_1(cosine):
    scored, read = random_table(3), random_table(4)
    for tables in ((scored,), (scored, read)):
        padded = ServedVectors(MeanUser(), *tables, cosine=cosine, length=3)
        plain = ServedVectors(MeanUser(), *(table[1:] for table in tables), cosine=cosine, length=3, padded=False)
        assert torch.equal(plain.items, padded.items) and torch.equal(plain.read, padded.read)
        wanted = torch.nn.functional.normalize(scored[1:], dim=-1) if cosine else scored[1:]
        assert torch.equal(plain.items[1:], wanted) and not plain.items[0].any()


def test_further_vectors_stand_for_items_that_only_some_rows_have():
    served, vector = sasrec(), random_table(8)[2:3]
    known = Rows.of([[4, 2, 7], [1]])
    further = Rows.of([[4, FURTHER, 7], [1]])
    table = served.items.clone()
    table[2] = vector[0]
    other = ServedVectors(served.user_model, table, cosine=False, length=4)
    torch.testing.assert_close(served.users(further, vector), other.users(known))
    with pytest.raises(ModelError, match="a blend has parts that know items by id"):
        blend().users(further, vector)


@pytest.mark.parametrize("cosine", [False, True])
def test_items_are_added_and_replaced(cosine):
    served, new = sasrec(cosine=cosine), random_table(9)[1:4]
    held = served.items
    served.add(new)
    served.replace(torch.tensor([2, 13]), new[1:])
    wanted = torch.cat([random_table(1), new])
    wanted[2], wanted[13] = new[1], new[2]
    fresh = ServedVectors(served.user_model, wanted, cosine=cosine, length=4)
    rows = Rows.of([[13, 14, 15], [2]])
    assert torch.equal(served.items, fresh.items) and torch.equal(served.users(rows), fresh.users(rows))
    assert len(held) == N_ITEMS + 1


def test_pairs_of_an_item_that_nothing_follows():
    served = markov()
    assert len(served.beside(Rows.of([[2]])).rows) == 0
    beside = served.beside(Rows.of([[2], [1, 9], [3]]))
    found = sorted(zip(beside.rows.tolist(), beside.items.tolist(), beside.values.tolist(), strict=True))
    assert found == [(1, 3, 2.5), (1, 10, 6.0), (2, 3, 2.5), (2, 4, 3.0)]
    assert served.users(Rows.of([[2], [1]])).tolist() == [[1.0], [1.0]]


def test_a_blends_weights_are_those_of_the_history_it_counts():
    served = blend()
    histories = [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7]]
    groups = served._weights(Rows.of(histories))
    assert torch.equal(groups, served.mix[[0, 1, 1, 2, 2]])
    assert served.items.shape == (N_ITEMS + 1, 2 * WIDTH + 1) and not served.reads_times


def test_similar_items_of_a_blend_are_those_of_its_vectors():
    """The popularity of Markov's part, one large number, would make all items alike."""
    served, items = blend(), torch.tensor([2, 5])
    shares = served.mix.mean(0)[:2] / served.mix.mean(0)[:2].sum()
    wanted = sum(
        share * torch.nn.functional.cosine_similarity(part.items[items], part.items[7][None], dim=-1)
        for share, part in zip(shares, served.parts, strict=False)
    )
    torch.testing.assert_close(served.similarities(items, 7), wanted)
    torch.testing.assert_close(served.similarities(torch.tensor([7]), 7), torch.ones(1))
