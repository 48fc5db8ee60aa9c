"""An LSTM encoder-decoder with additive attention in PyTorch (Bahdanau et al. 2015).

The encoder is one `nn.LSTM`. The decoder's first layer calls `nn.LSTMCell` step by step, since
the attention of a step depends on the state before it; its other layers are one `nn.LSTM`. What
does not depend on the state stays out of the loop: the embeddings and the keys before it, the
readout and the output layer after it.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

PAD = 0


class AdditiveAttention(nn.Module):
    """softmax(v^T tanh(W s + U h)) h."""

    def __init__(self, query_size: int, values_size: int, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_size, hidden_size, bias=False)
        self.key = nn.Linear(values_size, hidden_size)
        self.score = nn.Linear(hidden_size, 1, bias=False)

    def forward(
        self,
        state: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        padding: torch.Tensor | None,
    ) -> torch.Tensor:
        """state (B, H), keys (B, S, A), values (B, S, D), padding (B, S) -> context (B, D)."""
        scores = self.score(torch.tanh(keys + self.query(state)[:, None])).squeeze(-1)
        if padding is not None:
            scores = scores.masked_fill(padding, float("-inf"))
        return torch.bmm(scores.softmax(-1)[:, None], values)[:, 0]


class LSTMAttentionSeq2Seq(nn.Module):
    """Bidirectional encoder, decoder with additive attention, tied embeddings."""

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        nn.init.normal_(self.embedding.weight, std=embedding_size**-0.5)
        self.scale = embedding_size**0.5
        self.encoder = nn.LSTM(
            embedding_size,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=dropout_rate if num_layers > 1 else 0.0,
            bidirectional=True,
        )
        self.bridge = nn.Linear(2 * hidden_size, num_layers * hidden_size)
        self.attention = AdditiveAttention(hidden_size, 2 * hidden_size, hidden_size)
        self.cell = nn.LSTMCell(embedding_size + 2 * hidden_size, hidden_size)
        above = num_layers - 1
        self.decoder = nn.LSTM(hidden_size, hidden_size, above, batch_first=True) if above else None
        self.readout = nn.Linear(embedding_size + 3 * hidden_size, embedding_size)
        self.dropout = nn.Dropout(dropout_rate)

    def _embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.embedding(tokens) * self.scale)

    def encode(
        self, source: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """States (B, S, 2H), last states (B, 2H), and where the source is padding, if anywhere."""
        embedded, lengths = self._embed(source), (source != PAD).sum(1)
        if bool((lengths == source.shape[1]).all()):  # the fast path of nn.LSTM
            states, (last, _) = self.encoder(embedded)
            return states, torch.cat([last[-2], last[-1]], -1), None
        packed = pack_padded_sequence(
            embedded, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        states, (last, _) = self.encoder(packed)
        states, _ = pad_packed_sequence(states, batch_first=True, total_length=source.shape[1])
        return states, torch.cat([last[-2], last[-1]], -1), source == PAD

    def forward(self, source: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """source (B, S), inputs (B, T) -> logits (B, T, V)."""
        values, last, padding = self.encode(source)
        keys, embedded = self.attention.key(values), self._embed(inputs)
        h, *above = torch.tanh(self.bridge(last)).chunk(self.encoder.num_layers, -1)
        c = torch.zeros_like(h)
        states, contexts = [], []
        for x in embedded.unbind(1):
            context = self.attention(h, keys, values, padding)
            h, c = self.cell(torch.cat([x, context], -1), (h, c))
            states.append(h)
            contexts.append(context)
        top = torch.stack(states, 1)
        if self.decoder is not None:
            start = torch.stack(above)
            top, _ = self.decoder(self.dropout(top), (start, torch.zeros_like(start)))
        parts = [top, embedded, torch.stack(contexts, 1)]
        features = torch.tanh(self.readout(self.dropout(torch.cat(parts, -1))))
        return F.linear(features, self.embedding.weight)
