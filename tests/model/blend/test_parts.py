"""Parts: each reads histories as its own run does."""

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_hllm import load_run
from recbole_hllm.data.rows.columns import EVENT_TIME, EVENT_TIMES, WHOLE_HISTORY
from recbole_hllm.errors import ModelError


def rows_of(lengths, width):
    """Rows whose histories are 1, 2, 3, ..., at ten times these times."""
    place = torch.arange(1, width + 1)
    items = place * (place <= torch.tensor(lengths)[:, None])
    columns = {"item_id_list": items, EVENT_TIMES: items.double() * 10, "item_length": torch.tensor(lengths)}
    return Interaction({**columns, EVENT_TIME: torch.arange(len(lengths)).double()})


def test_histories_are_cut_to_the_last_items_and_padded(build):
    part = build("SASRecNCE", "SASRec", blend_weights=[1, 1]).model.parts[0]
    assert part.length == 3  # MAX_ITEM_LIST_LENGTH_TEST of its run; the blend's rows have 5
    cut = part._cut(rows_of([5, 3, 1, 0], 5))
    assert cut["item_id_list"].tolist() == [[3, 4, 5], [1, 2, 3], [1, 0, 0], [0, 0, 0]]
    assert cut[EVENT_TIMES].tolist() == [[30, 40, 50], [10, 20, 30], [10, 0, 0], [0, 0, 0]]
    assert cut["item_length"].tolist() == [3, 3, 1, 0] and cut[EVENT_TIME].tolist() == [0, 1, 2, 3]
    wide = part._cut(rows_of([2, 1], 2))
    assert wide["item_id_list"].tolist() == [[1, 2, 0], [1, 0, 0]]


def test_a_blend_with_longer_rows_scores_as_the_parts_do(build, runs):
    """Longer histories than any part reads make no difference to it."""
    short, long = (build("SASRecNCE", "SASRec", blend_weights=[1, 1], MAX_ITEM_LIST_LENGTH=n) for n in (5, 9))
    for ours, theirs in zip(short.test, long.test, strict=True):
        assert ours[0]["item_id_list"].shape[1] == 5 and theirs[0]["item_id_list"].shape[1] == 9
        assert (theirs[0]["item_length"] > 5).any()
        with torch.no_grad():
            torch.testing.assert_close(short.model.full_sort_predict(ours[0]), long.model.full_sort_predict(theirs[0]))


def test_a_model_that_scores_pairs_only_is_asked_for_every_item(build, runs):
    built = build("NeuMF", "BPR", blend_weights=[1, 0])
    rows = next(iter(built.test))[0]
    scores = built.model.full_sort_predict(rows)
    neumf = load_run(runs("NeuMF")).model
    for item in range(1, 13):
        rows["item_id"][:] = item
        with torch.no_grad():
            torch.testing.assert_close(scores[:, item], neumf.predict(rows))


def test_an_item_without_a_probability_gets_the_lowest_one(build, monkeypatch):
    built = build("NeuMF", "BPR", blend_weights=[1, 1])
    part, rows = built.model.parts[0], next(iter(built.test))[0]
    table = torch.arange(13.0).repeat(len(rows), 1)
    table[0, 5], table[1, 1:4], table[2] = -torch.inf, -torch.inf, -torch.inf
    monkeypatch.setattr(part, "_scores", lambda rows: table)
    logits = part.logits(rows)
    assert logits[0].tolist() == [0, 1, 2, 3, 4, 0, 6, 7, 8, 9, 10, 11, 12]
    assert logits[1, 1:4].tolist() == [0, 0, 0] and not logits[2].any() and torch.equal(logits[3:], table[3:])


def test_scores_that_are_not_numbers_are_refused(build, monkeypatch):
    built = build("NeuMF", "BPR", blend_weights=[1, 1])
    part, rows = built.model.parts[0], next(iter(built.test))[0]
    monkeypatch.setattr(part, "_scores", lambda rows: torch.full((len(rows), 13), torch.nan))
    with pytest.raises(ModelError, match="of: scores of .*NeuMF are not numbers"):
        built.model.full_sort_predict(rows)


def test_vectors_of_a_part_are_frozen(build):
    built = build("SASRecNCE", "BPR", blend_weights=[1, 1])
    assert not any(weight.requires_grad for part in built.model.parts for weight in part.model.parameters())
    assert not any(part.model.training for part in built.model.train().parts)
    assert set(built.model.state_dict()) == {"fake_loss", "mix"}


def test_parts_are_scored_from_what_their_own_runs_are(build, runs):
    """Two from whole histories, longer than those of the blend, and one from the training."""
    names = ("EASE", "MultiVAE", "ItemKNN")
    built = build(*names, blend_weights=[1, 1, 1])
    for rows, *_ in built.test:
        for name, part in zip(names, built.model.parts, strict=True):
            loaded = load_run(runs(name))
            own = loaded.test_data._dataset[loaded.test_data._dataset.first_rows(rows["user_id"].numpy())]
            with torch.no_grad():
                expected = loaded.model.full_sort_predict(own).view(len(rows), -1)
            torch.testing.assert_close(part.logits(rows), expected)
            assert (WHOLE_HISTORY in own) == (name != "ItemKNN")


def test_rows_after_the_data_have_histories(build):
    built = build("EASE", "ItemKNN", blend_weights=[1, 1])
    data = built.train._dataset.whole
    users, sequences = data.latest_sequences()
    had = torch.zeros(len(users), data.item_num)
    for row, number in enumerate(sequences):
        had[row, data.sequences.items[slice(*data.sequences.offsets[number : number + 2])].tolist()] = 1
    part = built.model.parts[0]
    torch.testing.assert_close(part.logits(data.latest_rows(sequences, whole=True)), had @ part.model.item_similarity)
