"""Small served models with random weights, and their scores by plain loops."""

import torch

from recbole_hllm.nn.user_models.sequence import HSTUUser, SASRecUser
from recbole_hllm.serving.catalogue import Catalogue
from recbole_hllm.serving.recommender import Recommender
from recbole_hllm.serving.rows import Rows
from recbole_hllm.serving.served import ServedBlend, ServedPairs, ServedTable, ServedVectors
from recbole_hllm.serving.served_z_scores import ServedZScores

N_ITEMS, WIDTH = 12, 8


def random_table(seed, n_items=N_ITEMS, width=WIDTH):
    """(n_items + 1, width); row 0 is padding."""
    table = torch.randn(n_items + 1, width, generator=torch.Generator().manual_seed(seed))
    table[0] = 0
    return table


def _random(user_model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in user_model.parameters():
            weight.copy_(0.5 * torch.randn(weight.shape, generator=generator))
    return user_model


def sasrec(seed=0, length=4, n_items=N_ITEMS, **options):
    """A SASRec of one layer that reads ``length`` items."""
    user_model = _random(SASRecUser(WIDTH, length, 1, 2, 16, "gelu", 1e-12), seed)
    return ServedVectors(user_model, random_table(seed + 1, n_items), **{"cosine": False, **options}, length=length)


def hstu(seed=0, length=4, **options):
    """An HSTU that reads times."""
    user_model = _random(HSTUUser(WIDTH, length, 1, 2, with_times=True), seed)
    return ServedVectors(user_model, random_table(seed + 1), **{"cosine": True, **options}, length=length)


def markov(n_items=N_ITEMS):
    """Pairs (i, i + 1) and (i, 3), of each second item."""
    pairs = sorted({(item, after) for item in range(1, n_items, 2) for after in (item + 1, 3)})
    popular = torch.cat([torch.zeros(1), -torch.arange(1.0, n_items + 1) / 4])
    return ServedPairs(popular, torch.tensor(pairs), torch.tensor([1.0 + 0.5 * after for _, after in pairs]))


def blend():
    """Of two models of vectors, one with a scale, and Markov; weights by length, from 2 and from 4 items on."""
    mix = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0], [0.1, 0.2, 0.7]])
    return ServedBlend([sasrec(), sasrec(5, length=2, cosine=True, scale=3.0), markov()], mix, [2, 4], length=5)


def table(seed=7, n_items=N_ITEMS):
    """What each item of a history gives each one."""
    return ServedTable(random_table(seed, n_items, n_items + 1))


def z_scores():
    """Of a model of vectors, Markov and a table; weights by length, from 2 items on."""
    mix = torch.tensor([[0.2, 0.5, 0.3], [0.5, 0.1, 0.4]])
    return ServedZScores([sasrec(scale=3.0), markov(), table()], mix, [2], length=5)


def recommender(served, **options):
    """With ids i1, i2, ..., and a title of each."""
    ids = [f"i{number}" for number in range(1, len(served.items))]
    catalogue = Catalogue(ids, [{"title": f"Title {item}"} for item in ids])
    return Recommender(served, catalogue, {"model": "SASRec"}, **options)


def numbers_of(items):
    """``["i3", "i1"]`` -> [3, 1]."""
    return [int(item[1:]) for item in items]


@torch.no_grad()
def slow_scores(served, history, times=None, at=None):
    """Item -> its score after one history, alone: no batch, no index, no tensor of pairs."""
    if isinstance(served, ServedTable):
        return {item: sum(float(served.table[one, item]) for one in history) for item in range(1, len(served.items))}
    if isinstance(served, ServedBlend):
        group = sum(min(len(history), served.length) >= bound for bound in served.bounds)
        total = dict.fromkeys(range(1, len(served.items)), 0.0)
        for part, weight in zip(served.parts, served.mix[group].tolist(), strict=True):
            scores = slow_scores(part, history, times, at)
            mean, scale = 0.0, part.scale
            if isinstance(served, ServedZScores):
                mean = sum(scores.values()) / len(scores)
                scale = (sum((score - mean) ** 2 for score in scores.values()) / len(scores)) ** -0.5
            for item, score in scores.items():
                total[item] += weight * scale * (score - mean)
        return total
    if isinstance(served, ServedPairs):
        values = {(i, j): value for (i, j), value in zip(served.pairs.tolist(), served.values.tolist(), strict=True)}
        popular = served.popular.tolist()
        return {item: popular[item] + values.get((history[-1], item), 0.0) for item in range(1, len(popular))}
    cut = Rows.of([history[-served.length :]], times and [times[-served.length :]], at and [at])
    user = served.users(cut)[0]
    return {item: float(user @ served.items[item]) for item in range(1, len(served.items))}
