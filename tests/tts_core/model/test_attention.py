"""Our attention against PyTorch's, and its cache against doing without."""

import torch
from torch import nn
from torch.nn import functional as F

from tts_core.model.attention import KeyValueCache, MultiHeadAttention, causal_mask


def paired_attention(width=16, heads=4):
    """Ours and torch.nn.MultiheadAttention with the same weights."""
    ours = MultiHeadAttention(width, heads).double()
    reference = nn.MultiheadAttention(width, heads, batch_first=True).double()
    with torch.no_grad():
        reference.in_proj_weight.copy_(
            torch.cat([ours.query.weight, ours.key.weight, ours.value.weight])
        )
        reference.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        reference.out_proj.load_state_dict(ours.output.state_dict())
    return ours, reference


def test_equals_the_independent_implementation_with_masks():
    ours, reference = paired_attention()
    x, memory = torch.randn(2, 5, 16).double(), torch.randn(2, 7, 16).double()
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    expected, weights = reference(
        x, memory, memory, key_padding_mask=~mask, average_attn_weights=False
    )
    torch.testing.assert_close(ours(x, *ours.project(memory), mask[:, None, None, :]), expected)
    ours.record = True
    torch.testing.assert_close(ours(x, *ours.project(memory), mask[:, None, None, :]), expected)
    torch.testing.assert_close(ours.weights, weights)


def test_core_equals_scaled_dot_product_attention():
    ours, _ = paired_attention()
    x = torch.randn(2, 6, 16).double()
    keys, values = ours.project(x)
    query = ours.query(x).unflatten(-1, (4, 4)).transpose(1, 2)
    expected = ours.output(
        F.scaled_dot_product_attention(query, keys, values, is_causal=True)
        .transpose(1, 2)
        .flatten(2)
    )
    ours.record = True
    torch.testing.assert_close(ours(x, keys, values, causal_mask(6, 6, x.device)), expected)


def test_causal_mask_of_the_last_queries():
    assert causal_mask(2, 4, torch.device("cpu")).tolist() == [
        [True, True, True, False],
        [True, True, True, True],
    ]


def test_cache_returns_everything_appended_so_far():
    cache = KeyValueCache.empty(batch=1, n_heads=2, capacity=5, head_dim=3, like=torch.zeros(()))
    first, second = torch.randn(1, 2, 2, 3), torch.randn(1, 2, 1, 3)
    cache.append(first, first)
    keys, values = cache.append(second, 2 * second)
    torch.testing.assert_close(keys, torch.cat([first, second], dim=2))
    torch.testing.assert_close(values, torch.cat([first, 2 * second], dim=2))


@torch.no_grad()
def test_causal_by_name_is_the_mask_written_out():
    ours, _ = paired_attention()
    x = torch.randn(2, 9, 16).double()
    keys, values = ours.project(x)
    expected = ours(x, keys, values, causal_mask(9, 9, x.device))
    torch.testing.assert_close(ours(x, keys, values, "causal"), expected)
    ours.record = True
    torch.testing.assert_close(ours(x, keys, values, "causal"), expected)
    assert float(ours.weights.triu(1).abs().max()) == 0.0


@torch.no_grad()
def test_numbers_as_a_mask_are_added_to_the_logits():
    ours, _ = paired_attention()
    x, memory = torch.randn(2, 5, 16).double(), torch.randn(2, 3, 16).double()
    twice = ours(x, *ours.project(memory[:, [0, 0, 1, 2]]))
    bias = torch.tensor([2.0, 1.0, 1.0]).log()[None, None, None]
    torch.testing.assert_close(ours(x, *ours.project(memory), bias), twice)
    ours.record = True
    torch.testing.assert_close(ours(x, *ours.project(memory), bias), twice)
