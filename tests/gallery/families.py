"""Kinds: encoder-decoders, torch's own transformer layers with their fast path, recurrent layers, packed sequences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from gallery.exhibit import LINEAR, WIDTH, Exhibit, Through, call, linear, shown

BATCH, LONG, HIDDEN = 2, 5, 16


def _sequence() -> Tensor:
    """Make a (BATCH, LONG, WIDTH) input."""
    return torch.linspace(-1, 1, BATCH * LONG * WIDTH).reshape(BATCH, LONG, WIDTH)


def _encoder_layer() -> int:
    """FLOPs of one encoder layer: projections of queries, keys, values and output, scores and sums, two matrices."""
    positions = BATCH * LONG
    return 2 * positions * (4 * WIDTH * WIDTH + 2 * LONG * WIDTH + 2 * WIDTH * HIDDEN)


@shown
def torch_transformer() -> Exhibit:
    """Encoder and decoder of torch, positions first, with a causal mask."""

    def build() -> nn.Module:
        return nn.Transformer(WIDTH, 2, 1, 1, HIDDEN, batch_first=False)

    def make() -> dict[str, Tensor]:
        x = _sequence().transpose(0, 1)
        return {"src": x, "tgt": x, "tgt_mask": nn.Transformer.generate_square_subsequent_mask(LONG)}

    across = 2 * BATCH * LONG * (4 * WIDTH * WIDTH + 2 * LONG * WIDTH)
    return Exhibit(build, calls=(call(make),) * 2, flops=2 * (2 * _encoder_layer() + across))


@shown
def encoder_fast_path() -> Exhibit:
    """In evaluation torch runs one fused operator a layer, and pads away rows in nested tensors."""

    def make() -> dict[str, Tensor]:
        padding = torch.tensor([[False] * LONG, [False] * 3 + [True] * 2])
        return {"src": _sequence(), "src_key_padding_mask": padding}

    return Exhibit(
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, 2, HIDDEN, batch_first=True), 2),
        calls=(call(make),) * 2,
        no_count="the padding that the fast path leaves out is executed elsewhere",
    )


@shown
def encoder_fast_path_without_padding() -> Exhibit:
    """The fused operator, nothing padded."""
    return Exhibit(
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, 2, HIDDEN, batch_first=True), 2),
        calls=(call(_sequence),) * 2,
        flops=2 * 2 * _encoder_layer(),
        partly=True,
    )


@shown
def attention_with_weights() -> Exhibit:
    """Torch's attention that gives its weights back, which takes the unfused way, and once without them."""

    def forward(m: Any, x: Tensor) -> Any:
        return m.attend(x, x, x), m.attend(x, x, x, need_weights=False)

    return Exhibit(
        lambda: Through(forward, attend=nn.MultiheadAttention(WIDTH, 2, batch_first=True)),
        calls=(call(_sequence),),
        flops=2 * 2 * BATCH * LONG * (4 * WIDTH * WIDTH + 2 * LONG * WIDTH),
        partly=True,
    )


@shown
def tiny_t5() -> Exhibit:
    """An encoder-decoder of transformers that generates."""

    def build() -> nn.Module:
        from transformers import T5Config, T5ForConditionalGeneration

        config = T5Config(vocab_size=16, d_model=WIDTH, d_kv=4, num_heads=2, d_ff=HIDDEN, num_layers=1)
        config.decoder_start_token_id = 0
        return T5ForConditionalGeneration(config)

    def drive(model: Any) -> Any:
        ids = torch.tensor([[3, 4, 5, 1], [6, 7, 1, 0]])
        given = {"input_ids": ids, "attention_mask": (ids != 0).long()}
        return model.generate(**given, max_new_tokens=3, do_sample=False), model(**given, decoder_input_ids=ids[:, :2])

    return Exhibit(build, drive=drive, no_count="tests/families.py holds the counts of transformers' models")


@shown
def tiny_bart() -> Exhibit:
    """Another, with positions that are looked up, sampling."""

    def build() -> nn.Module:
        from transformers import BartConfig, BartForConditionalGeneration

        size: dict[str, Any] = {
            f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 1), ("ffn_dim", 16))
        }
        heads: dict[str, Any] = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        config = BartConfig(vocab_size=16, d_model=WIDTH, max_position_embeddings=16, **size, **heads)
        return BartForConditionalGeneration(config)

    def drive(model: Any) -> Any:
        ids = torch.tensor([[3, 4, 5, 2], [6, 7, 2, 1]])
        return model.generate(ids, attention_mask=(ids != 1).long(), max_new_tokens=3, do_sample=True)

    return Exhibit(build, drive=drive, no_count="tests/families.py holds the counts of transformers' models")


def _packed() -> PackedSequence:
    return pack_padded_sequence(_sequence(), torch.tensor([LONG, 3]), batch_first=True)


@shown
def packed_lstm() -> Exhibit:
    """A packed sequence through an LSTM: 8 positions, four gates, from input and from state."""

    def forward(m: Any, x: PackedSequence) -> Any:
        out, state = m.lstm(x)
        return pad_packed_sequence(out, batch_first=True), state

    positions = LONG + 3
    return Exhibit(
        lambda: Through(forward, lstm=nn.LSTM(WIDTH, WIDTH, batch_first=True)),
        calls=(call(lambda: (_packed(),)),) * 2,
        flops=2 * 2 * positions * 4 * 2 * WIDTH * WIDTH,
        partly=True,
    )


@shown
def lstm_alone() -> Exhibit:
    """The model is an LSTM, in both directions, two layers; the second reads both of the first."""
    gates = 4 * WIDTH
    layers = 2 * (gates * 2 * WIDTH) + 2 * (gates * 3 * WIDTH)
    return Exhibit(
        lambda: nn.LSTM(WIDTH, WIDTH, num_layers=2, bidirectional=True, batch_first=True),
        calls=(call(_sequence),),
        flops=2 * BATCH * LONG * layers,
        partly=True,
    )


@shown
def gru_and_rnn() -> Exhibit:
    """A GRU (three gates) and a plain recurrent layer (one), with a state that is handed on."""

    def drive(model: Any) -> Any:
        state = None
        for _ in range(2):
            out, state = model(_sequence(), state)
        return out, state

    def forward(m: Any, x: Tensor, state: Any) -> Any:
        x, first = m.gru(x, None if state is None else state[0])
        x, second = m.rnn(x, None if state is None else state[1])
        return x, (first, second)

    parts = {"gru": nn.GRU, "rnn": nn.RNN}
    return Exhibit(
        lambda: Through(forward, **{name: kind(WIDTH, WIDTH, batch_first=True) for name, kind in parts.items()}),
        drive=drive,
        flops=2 * 2 * BATCH * LONG * (3 + 1) * 2 * WIDTH * WIDTH,
        partly=True,
    )


@shown
def recurrent_cells() -> Exhibit:
    """An LSTM cell in a loop of the model's own."""

    def forward(m: Any, x: Tensor) -> Any:
        state: Any = None
        for step in x.unbind(1):
            state = m.cell(step, state)
        return m.head(state[0])

    return Exhibit(
        lambda: Through(forward, cell=nn.LSTMCell(WIDTH, WIDTH), head=linear()),
        calls=(call(_sequence),),
        flops=2 * BATCH * LONG * 4 * 2 * WIDTH * WIDTH + LINEAR * BATCH // 3,
        partly=True,
    )
