"""A part-of-speech tagger of one bidirectional LSTM: Huang et al., 2015, arXiv:1508.01991, figure 4 (BI-LSTM)."""

from __future__ import annotations

from hyps.models.layers import LayerOutput, Layers
from hyps.models.sequences import bidirectional_lstm, embedding, linear

WORDS, EMBEDDED, HIDDEN = 20_000, 128, 256
TAGS = 45
"""The tags of the Penn Treebank."""


def lstm_tagger(net: Layers, tokens: LayerOutput) -> LayerOutput:
    """Map a sentence of 64 word numbers below 20,000 to scores of 45 tags for each word, [1, 64, 45]."""
    x = embedding(net, tokens, "embedding", WORDS, EMBEDDED)
    return linear(net, bidirectional_lstm(net, x, "lstm", HIDDEN), "tag", TAGS, output="logits")
