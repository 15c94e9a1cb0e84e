"""GPT-2 over a cache of keys and values: the program of a few new tokens, and of the head alone.

    program, logits = build_decode(ops, model, B, 1, capacity, head="logits")
    program, _      = build_decode(ops, model, B, T, capacity, head=None)         # fills the cache

The layers are those of gpt2.py, with `attention_decode` in the place of `attention`. The caches are
states of the program, `keys.0` .. `values.11`, of capacity places a row.
"""

from harness.contract import OpTable
from harness.errors import ConfigError
from harness.graph.program import Program, Tensor
from harness.models.gpt2 import GPT2, LAYERNORM_EPS, Adapter, Weights


def build_decode(
    ops: OpTable,
    model: GPT2,
    B: int,
    T: int,
    capacity: int,
    *,
    head: str | None,
    adapter: Adapter | None = None,
) -> tuple[Program, Tensor | None]:
    """The program of T new tokens in each of B rows, and its result.

    head: `logits` gives the logits of the one new token, logits_BV, and needs T = 1; None gives no
        result, and ends when the last layer's keys and values are in its cache.
    Inputs: tokens (B, T) and position (B,), the tokens that the cache holds of each row, int32;
    position + T <= capacity <= model.positions.
    Raises ConfigError where the model's attention has no op that decodes.
    """
    check_decodes(model)
    assert T <= capacity <= model.positions, "the cache has a place for each new token"
    assert head is None or T == 1, "logits are of one token"
    C, H, D = model.channels, model.heads, model.channels // model.heads
    p = Program(ops)
    w = Weights(p, model, adapter)
    tokens_BT = p.input("tokens", (B, T))
    position_B = p.input("position", (B,))
    last = model.layers - 1

    x = p.embedding(tokens_BT, position_B, w.wte, w.wpe)
    h = p.layernorm(x, *w("ln1", 0), LAYERNORM_EPS)
    for layer in range(model.layers):
        qkv = w.linear("qkv", layer, h).reshape(B, T, 3, H, D)
        cache = [p.state(f"{name}.{layer}", (B, capacity, H, D)) for name in ("keys", "values")]
        mixed = p.attention_decode(*cache, qkv, position_B).reshape(B * T, C)
        if head is None and layer == last:
            return p, None
        x, h = p.residual_layernorm(
            x, w.linear("attproj", layer, mixed), *w("ln2", layer), LAYERNORM_EPS
        )
        hidden = w.feed_forward(layer, h)
        following = w("ln1", layer + 1) if layer < last else w("lnf")
        x, h = p.residual_layernorm(x, w.linear("fcproj", layer, hidden), *following, LAYERNORM_EPS)
    return p, p.matmul(h, w.wte, None)


def build_head(
    ops: OpTable, model: GPT2, B: int, adapter: Adapter | None = None
) -> tuple[Program, Tensor]:
    """The program of the head alone: input `hidden` (B, C), result logits_BV."""
    p = Program(ops)
    w = Weights(p, model, adapter)
    hidden_BC = p.input("hidden", (B, model.channels), "activation")
    logits = p.matmul(hidden_BC, w.wte, None)
    assert isinstance(logits, Tensor)
    return p, logits


def check_decodes(model: GPT2) -> None:
    """Raise ConfigError for a model whose attention cannot go on from a cache."""
    if model.attention == "attention":
        return
    raise ConfigError(
        f"a model with attention={model.attention} cannot generate from a cache of keys and values",
        slug="attention-without-cache",
        expected="attention, whose op attention_decode goes on from a cache",
        do="cache=false recomputes the whole text for each token",
    )
