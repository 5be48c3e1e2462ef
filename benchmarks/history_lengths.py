"""Histories read in groups of similar length beside the whole batch padded to the longest.

    PYTHONPATH=. python benchmarks/history_lengths.py [--rows 128] [--length 20] [--median 6]

A forward and backward pass of the User LLM of properties/model/HLLM.yaml over the same rows; lengths are drawn as those
of public shop data lie: most are short, a few are cut at the longest.
"""

import argparse
import time

import torch

from recbole_hllm.model.base.next_item import History, NextItemRecommender
from recbole_hllm.nn.backbone import BackboneSpec, load_backbone
from recbole_hllm.nn.user_encoder import UserEncoder

SIZES = {
    "model_type": "llama", "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 6, "max_position_embeddings": 2048, "vocab_size": 8,
}  # fmt: skip


class Reader(NextItemRecommender):
    """What reads a history, without what a recommender needs beside it."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        spec = BackboneSpec(None, init="scratch", config=SIZES, attn_implementation="eager")
        self.user_encoder = UserEncoder(load_backbone(spec))

    def read_history(self, vectors, history):
        return self.user_encoder(vectors)


def seconds(read, vectors, history, repeats):
    """Mean time of a pass, the first one not counted."""
    for repeat in range(repeats + 1):
        if repeat == 1:
            start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = read(vectors, history)
        outputs[history.items != 0].float().square().sum().backward()
    return (time.perf_counter() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--length", type=int, default=20, help="longest history")
    parser.add_argument("--median", type=float, default=6)
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    lengths = (2 + torch.empty(arguments.rows).exponential_(0.69 / max(arguments.median - 2, 0.1))).long()
    lengths = lengths.clamp(max=arguments.length)
    items = (torch.arange(arguments.length) < lengths[:, None]).long()
    history = History(items, None, None, None)
    vectors, reader = torch.randn(*items.shape, SIZES["hidden_size"]), Reader()
    together = seconds(reader.read_history, vectors, history, arguments.repeats)
    grouped = seconds(reader.read_by_length, vectors, history, arguments.repeats)
    print(f"{arguments.rows} rows of up to {arguments.length} items, {lengths.float().mean():.1f} on average\n")
    print("| way | time | ratio |\n| --- | ---: | ---: |")
    print(f"| padded to the longest | {together * 1000:.0f} ms | 1.0x |")
    print(f"| in groups of similar length | {grouped * 1000:.0f} ms | {together / grouped:.1f}x |")


if __name__ == "__main__":
    main()
