"""A small export, written without a run."""

import torch
import torch.nn.functional as F

from recbole_hllm.nn.user_models.sequence import SASRecUser
from recbole_hllm.serving import folder as files
from recbole_hllm.serving.served import ServedVectors

WIDTH, LENGTH = 8, 5


def served_vectors(items=60, cosine=False, seed=0):
    """A model that knows so many items; the vectors lie in clusters and have different lengths."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(6, WIDTH, generator=generator)
    vectors = centres[torch.arange(items) % 6] + 0.5 * torch.randn(items, WIDTH, generator=generator)
    torch.manual_seed(seed)
    user_model = SASRecUser(WIDTH, LENGTH, n_layers=1, n_heads=1, inner_size=8, activation="gelu", eps=1e-12)
    return ServedVectors(user_model, F.pad(vectors, (0, 0, 1, 0)), cosine=cosine, length=LENGTH)


def user_histories(users, items, seed=0):
    """Of users named u0, u1, ..., each with 1 to 7 items."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 8, (users,), generator=generator)
    numbers = torch.randint(1, items + 1, (int(lengths.sum()),), generator=generator)
    times = torch.arange(len(numbers), dtype=torch.float64)
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    return files.UserHistories.of([f"u{user}" for user in range(users)], numbers, times, offsets)


def write_export(folder, items=60, users=0, cosine=False):
    """Items are named i1, i2, ...; returns the folder."""
    described = files.write_served(served_vectors(items, cosine), folder)
    names = [f"i{number}" for number in range(1, items + 1)]
    files.write_items(folder, names, [{"title": f"Title {name}"} for name in names])
    if users:
        files.write_histories(folder, user_histories(users, items))
    files.write_manifest(folder, {"model": "SASRec", "dataset": "toy", "served": described, "template": None})
    return folder
