import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.nn.all_action import all_action_over_catalogue, dense_all_action


def plain(outputs, targets, scale, users, ids=None, owned=None):
    """The formula of section 3.3, one row, position and target at a time.

    Args:
        outputs, targets: row -> list of vectors.
        users: row -> whose it is.
        ids: row -> list of the targets' items.
        owned: row -> items that are no negatives for it.
    """
    terms = []
    for user, mine in enumerate(outputs):
        for output in mine:
            for target in targets[user]:
                own = scale.exp() * F.cosine_similarity(output, target, dim=0)
                others = [
                    scale.exp() * F.cosine_similarity(output, other, dim=0)
                    for z, theirs in enumerate(targets)
                    for k, other in enumerate(theirs)
                    if users[z] != users[user] and (ids is None or ids[z][k] not in owned[user])
                ]
                terms.append(-torch.log(own.exp() / (own.exp() + sum(other.exp() for other in others))))
    return sum(terms) / len(terms)


def flat(parts):
    """User -> list of things: all of them, and whose each is."""
    owners = torch.tensor([user for user, part in enumerate(parts) for _ in part], dtype=torch.long)
    return torch.stack([one for part in parts for one in part]), owners


def vectors(counts, seed):
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(4, generator=generator) for _ in range(count)] for count in counts]


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=5).filter(
        lambda counts: any(one and other for one, other in counts)
    ),
    st.booleans(),
    st.integers(1, 200),
    st.integers(2, 5),
)
def test_value_and_gradients_are_the_plain_formulas(counts, masked, max_logits, n_users):
    users = [row % n_users for row in range(len(counts))]
    outputs, targets = vectors([j for j, _ in counts], 1), vectors([k for _, k in counts], 2)
    ids = [[1 + (user + k) % 4 for k in range(len(part))] for user, part in enumerate(targets)]
    owned = [[*row, 1 + user % 3] for user, row in enumerate(ids)]  # the target compared, and one that is not
    results = []
    for loss_of in ("plain", "ours"):
        o = [[one.clone().requires_grad_() for one in part] for part in outputs]
        t = [[one.clone().requires_grad_() for one in part] for part in targets]
        scale = torch.tensor(1.3, requires_grad=True)
        if loss_of == "plain":
            loss = plain(o, t, scale, users, ids if masked else None, owned)
        else:
            table = torch.tensor([row + [0] * (4 - len(row)) for row in owned])
            same_items = (torch.tensor(sum(ids, [])), table) if masked else None
            loss = dense_all_action(*flat(o), *flat(t), scale, torch.tensor(users), same_items, max_logits)
        loss.backward()
        leaves = [scale, *sum(o, []), *sum(t, [])]
        results.append((loss.detach(), [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]))
    (expected, gradients), (value, ours) = results
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(ours, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_users_other_targets_are_no_negatives():
    outputs, targets = vectors([1, 1], 1), vectors([2, 1], 2)
    users = torch.arange(2)
    value = dense_all_action(*flat(outputs), *flat(targets), torch.tensor(0.0), users)
    moved = [[targets[0][0], -targets[0][0]], targets[1]]
    only = dense_all_action(*flat([outputs[0], []]), *flat([targets[0][:1], targets[1]]), torch.tensor(0.0), users)
    first = plain([outputs[0], []], [targets[0][:1], targets[1]], torch.tensor(0.0), [0, 1])
    torch.testing.assert_close(only, first)
    assert not torch.isclose(value, dense_all_action(*flat(outputs), *flat(moved), torch.tensor(0.0), users))


def test_one_user_alone_has_no_negatives_and_no_gradient():
    outputs = torch.randn(3, 4, requires_grad=True)
    owners = torch.zeros(3, dtype=torch.long)
    loss = dense_all_action(outputs, owners, torch.randn(2, 4), owners[:2], torch.tensor(1.0), owners[:1])
    loss.backward()
    assert loss.item() == 0 and torch.equal(outputs.grad, torch.zeros_like(outputs))


def test_rows_of_one_user_are_no_negatives_for_each_other():
    outputs, targets = vectors([1, 1, 1], 1), vectors([1, 1, 1], 2)
    together = dense_all_action(*flat(outputs), *flat(targets), torch.tensor(0.0), torch.tensor([5, 5, 9]))
    torch.testing.assert_close(together, plain(outputs, targets, torch.tensor(0.0), [5, 5, 9]))
    apart = dense_all_action(*flat(outputs), *flat(targets), torch.tensor(0.0), torch.tensor([5, 6, 9]))
    assert not torch.isclose(together, apart)


def test_no_pairs_at_all():
    none = torch.zeros(0, dtype=torch.long)
    outputs = torch.zeros(0, 4, requires_grad=True)
    loss = dense_all_action(outputs, none, torch.randn(2, 4), none.new_zeros(2), torch.tensor(1.0), none.new_zeros(1))
    loss.backward()
    assert loss.item() == 0


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4).filter(
        lambda counts: any(one and other for one, other in counts)
    ),
    st.integers(1, 5),
    st.integers(1, 200),
)
def test_over_the_catalogue_value_and_gradients_are_the_plain_formulas(counts, n_items, max_logits):
    """Every item but the row's own targets is a negative, each once, whoever else has it as a target."""
    results = []
    ids = [[1 + (row + k) % 5 for k in range(of_targets)] for row, (_, of_targets) in enumerate(counts)]
    for loss_of in ("plain", "ours"):
        outputs, targets = vectors([j for j, _ in counts], 1), vectors([k for _, k in counts], 2)
        catalogue = vectors([n_items], 3)[0]
        scale = torch.tensor(1.3, requires_grad=True)
        leaves = [scale, *sum(outputs, []), *sum(targets, []), *catalogue]
        for leaf in leaves:
            leaf.requires_grad_()
        if loss_of == "plain":
            terms = []
            for row, (mine, wanted) in enumerate(zip(outputs, targets, strict=True)):
                negatives = [item for number, item in enumerate(catalogue, 1) if number not in ids[row]]
                for output in mine:
                    for target in wanted:
                        logits = scale.exp() * torch.stack(
                            [F.cosine_similarity(output, item, dim=0) for item in (target, *negatives)]
                        )
                        terms.append(F.cross_entropy(logits, torch.tensor(0)))
            loss = sum(terms) / len(terms)
        else:
            owned = torch.tensor([row + [0] * (3 - len(row)) for row in ids])
            same_items = (torch.arange(1, n_items + 1), owned)
            loss = all_action_over_catalogue(
                *flat(outputs), *flat(targets), scale, torch.stack(catalogue), same_items, max_logits
            )
        loss.backward()
        results.append((loss.detach(), [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]))
    (expected, gradients), (value, ours) = results
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(ours, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_memory_is_bounded_by_the_block(monkeypatch):
    """No block of logits is larger than asked for, and every output is in one."""
    from recbole_hllm.nn import all_action

    seen, block = [], all_action._sum_of_block

    def watched(outputs, users, targets, *rest):
        seen.append(len(outputs) * len(targets))
        return block(outputs, users, targets, *rest)

    monkeypatch.setattr(all_action, "_sum_of_block", watched)
    users = torch.arange(10)
    dense_all_action(torch.randn(10, 4), users, torch.randn(10, 4), users, torch.tensor(0.0), users, max_logits=35)
    assert max(seen) <= 35 and sum(seen) == 100


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_compared_in_float32(dtype):
    users = torch.arange(6)
    outputs, targets = torch.randn(6, 8).to(dtype), torch.randn(6, 8).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = dense_all_action(outputs, users, targets, users, torch.tensor(3.0), users)
    expected = dense_all_action(outputs.float(), users, targets.float(), users, torch.tensor(3.0), users)
    assert value.dtype == torch.float32 and torch.equal(value, expected)
