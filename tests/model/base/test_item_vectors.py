"""Vectors of a catalogue, of which each of two processes encodes a share, are those of one process to the last bit."""

import numpy as np
import torch
from launched import launch

from recbole_hllm.model.base.item_vectors import encode_by_all, encode_catalogue
from recbole_hllm.nn.chunked import encode_items
from recbole_hllm.processes import begin, end


def encodes(model, folder, cases):
    """Vectors of all cases, in a file of this process; which items it encoded."""
    processes = begin(torch.device("cpu"), 1)
    encoder, saved = model.item_encoder, {}
    for name, options in cases.items():
        if "cache" in options:
            options = {**options, "cache": options["cache"](processes.rank)}
            saved[name] = np.array(encode_catalogue(encoder, model.catalogue, precision="fp32", **options))
        else:
            with torch.no_grad():
                saved[name] = encode_by_all(encoder.eval(), model.catalogue, **options).numpy()
    np.savez(folder / f"{processes.world_size}-{processes.rank}.npz", **saved)
    end()


def test_two_processes_encode_what_one_does(build, tmp_path):
    model, _ = build()
    lengths = model.catalogue.lookup(np.arange(1, model.catalogue.n_items))[1]
    small = int(lengths.max()) + 1  # an item or two in a chunk
    cases = {
        "shared cache": {"cache": lambda rank: tmp_path / "cache", "token_budget": small},
        "own caches": {"cache": lambda rank: tmp_path / f"cache-of-{rank}", "token_budget": small},
        "no cache": {"cache": lambda rank: None, "token_budget": small},
        "one chunk": {"cache": lambda rank: None, "token_budget": 10_000},
        "with a projection": {"token_budget": small},
    }
    assert [process.code for process in launch(encodes, model, tmp_path, cases)] == [0, 0]
    with torch.no_grad():
        tokens = model.catalogue.lookup(np.arange(1, model.catalogue.n_items))
        plain = encode_items(model.item_encoder.eval().pooled, *tokens, token_budget=small)
        projected = encode_items(model.item_encoder, *tokens, token_budget=small)
    first, second = (np.load(tmp_path / f"2-{rank}.npz") for rank in range(2))
    for name in cases:
        np.testing.assert_array_equal(first[name], second[name])
        assert not first[name][0].any()
    for name in ("shared cache", "own caches", "no cache"):
        np.testing.assert_array_equal(first[name][1:], plain.numpy())
    np.testing.assert_array_equal(first["with a projection"][1:], projected.numpy())
    np.testing.assert_allclose(first["one chunk"][1:], plain.numpy(), atol=1e-6)
    assert list((tmp_path / "cache").glob("vectors-*")) and not (tmp_path / "cache-of-1").exists()
