"""The zoo: small models of many architectures, each written as its field writes it. docs/architectures.md lists them.

`build(kind)` makes one; `inputs(kind)` says what it takes: name -> (axes, largest integer or 0 for floats).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its name in every textbook

FEATURES, WIDTH, CLASSES, TOKENS, SIDE = 12, 32, 5, 40, 16


class MLP(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(FEATURES, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES))


class NormedMLP(nn.Sequential):
    def __init__(self) -> None:
        layers = [nn.Linear(FEATURES, WIDTH), nn.LayerNorm(WIDTH), nn.GELU(), nn.Dropout(0.1)]
        super().__init__(*layers, nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, CLASSES))


class BatchNormMLP(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(FEATURES, WIDTH), nn.BatchNorm1d(WIDTH), nn.Mish(), nn.Linear(WIDTH, CLASSES))


class LinearRegression(nn.Linear):
    def __init__(self) -> None:
        super().__init__(FEATURES, 1)


class SoftmaxClassifier(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(FEATURES, CLASSES), nn.Softmax(-1))


class ResidualMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(FEATURES, WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
            for _ in range(3)
        )
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inside(x)
        for block in self.blocks:
            h = h + block(h)
        return self.head(h)


class Siren(nn.Module):
    """Sine activations (Sitzmann et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.sin(3.0 * self.b(torch.sin(3.0 * self.a(x)))))


class CNN(nn.Sequential):
    def __init__(self) -> None:
        first = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
        second = [nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
        super().__init__(*first, *second, nn.Flatten(), nn.Linear(16, CLASSES))


class CNN1d(nn.Sequential):
    def __init__(self) -> None:
        first = [nn.Conv1d(FEATURES, WIDTH, 5, padding=2), nn.ReLU(), nn.AvgPool1d(2)]
        super().__init__(*first, nn.Conv1d(WIDTH, 8, 3), nn.Flatten(), nn.Linear(8 * 6, CLASSES))


class GroupNormCNN(nn.Sequential):
    def __init__(self) -> None:
        norms = [nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Hardswish(), nn.Conv2d(8, 8, 3), nn.InstanceNorm2d(8)]
        super().__init__(*norms, nn.LeakyReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, CLASSES))


class BasicBlock(nn.Module):
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.b1 = nn.BatchNorm2d(out)
        self.c2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.b2 = nn.BatchNorm2d(out)
        self.short = nn.Conv2d(inside, out, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.b2(self.c2(F.relu(self.b1(self.c1(x))))) + self.short(x))


class ResNet(nn.Sequential):
    def __init__(self) -> None:
        stem = [nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU()]
        blocks = [BasicBlock(8, 8, 1), BasicBlock(8, 16, 2), BasicBlock(16, 32, 2)]
        super().__init__(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES))


class MobileBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Conv2d(width, width * 4, 1), nn.Conv2d(width * 4, width, 1)
        self.depth = nn.Conv2d(width * 4, width * 4, 3, padding=1, groups=width * 4)
        self.squeeze, self.excite = nn.Linear(width * 4, width), nn.Linear(width, width * 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self.depth(F.relu6(self.up(x))))
        weight = torch.sigmoid(self.excite(F.relu(self.squeeze(h.mean((2, 3))))))
        return x + self.down(h * weight[:, :, None, None])


class MobileNet(nn.Sequential):
    """Depthwise separable convolutions with squeeze and excitation."""

    def __init__(self) -> None:
        body = [nn.Conv2d(3, 8, 3, 2, 1), MobileBlock(8), MobileBlock(8)]
        super().__init__(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 + 4 * n, 4, 3, padding=1) for n in range(3))
        self.head = nn.Linear(15, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, F.elu(layer(x))], 1)
        return self.head(x.amax((2, 3)))


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ways = nn.ModuleList(nn.Conv2d(3, 6, size, padding=size // 2) for size in (1, 3, 5))
        self.head = nn.Linear(18, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([F.relu(way(x)) for way in self.ways], 1).mean((2, 3)))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.out = nn.Conv2d(16, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        one = F.relu(self.down1(x))
        two = F.relu(self.down2(F.max_pool2d(one, 2)))
        return self.out(torch.cat([one, self.up(two)], 1))


class Upsampler(nn.Module):
    """Bilinear and sub-pixel upsampling (Shi et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        fine = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.two(F.pixel_shuffle(self.one(x), 2) + fine)


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, 2, 1))
        self.decode = nn.Sequential(nn.ConvTranspose2d(4, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encode(x)
        return torch.sigmoid(self.decode(code)), code.flatten(1)


class Detector(nn.Module):
    """One stage, dense heads: boxes and scores for every cell."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.SiLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.SiLU())
        self.boxes, self.scores = nn.Conv2d(16, 4, 1), nn.Conv2d(16, CLASSES, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.boxes(h).flatten(2).transpose(1, 2).exp(), self.scores(h).flatten(2).transpose(1, 2).sigmoid()


class TCN(nn.Module):
    """Dilated causal convolutions (Bai et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(FEATURES, FEATURES, 3, dilation=2**n) for n in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = x.transpose(1, 2)
        for n, layer in enumerate(self.layers):
            h = h + torch.tanh(layer(F.pad(h, (2 * 2**n, 0))))
        return h.transpose(1, 2)


class LastLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(FEATURES, WIDTH, num_layers=2, batch_first=True), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class BiGRU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(FEATURES, WIDTH, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x)[0].mean(1))


class ElmanRNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(FEATURES, WIDTH, batch_first=True), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        steps, last = self.rnn(x)
        return self.head(steps), last[0]


class MaskedGRU(nn.Module):
    """Lengths as a mask, which every format can say."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(FEATURES, WIDTH, batch_first=True), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        steps = self.gru(x)[0]
        kept = (torch.arange(x.shape[1])[None, :] < lengths).to(x.dtype)[:, :, None]
        return self.head((steps * kept).sum(1) / kept.sum(1))


class PackedLSTM(nn.Module):
    """Lengths by packing."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(FEATURES, WIDTH, batch_first=True), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths[:, 0], batch_first=True, enforce_sorted=False)
        return self.head(self.lstm(packed)[1][0][-1])


class AttentionPool(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.score, self.value = nn.Linear(FEATURES, 1), nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return (self.score(x).softmax(1) * self.value(x)).sum(1)


class TransformerEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(TOKENS, WIDTH), nn.Parameter(torch.randn(64, WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 64, batch_first=True, norm_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.body(self.tokens(ids) + self.places[: ids.shape[1]]).mean(1))


class Attention(nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, WIDTH // 4)).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(h.transpose(1, 2).flatten(2))


class Decoder(nn.Module):
    """A causal language model with tied embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.norm = nn.Embedding(TOKENS, WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.ModuleList(Attention(causal=True) for _ in range(2))
        self.head = nn.Linear(WIDTH, TOKENS, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        h = self.tokens(ids)
        for attention in self.attention:
            h = h + attention(self.norm(h))
        return self.head(h)


class CachedDecoder(nn.Module):
    """One step with the keys and values of the steps before as inputs, and with this one's as outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.qkv = nn.Embedding(TOKENS, WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.head = nn.Linear(WIDTH, TOKENS)

    def forward(self, ids: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(self.tokens(ids)).chunk(3, -1)
        keys, values = torch.cat([keys, k], 1), torch.cat([values, v], 1)
        weights = (q @ keys.transpose(1, 2) / math.sqrt(WIDTH)).softmax(-1)
        return self.head(weights @ values), keys, values


class RotaryDecoder(nn.Module):
    """Rotary positions (Su et al. 2021), RMS norm, gated MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.norm = nn.Embedding(TOKENS, WIDTH), nn.RMSNorm(WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.gate, self.up, self.down = nn.Linear(WIDTH, 64), nn.Linear(WIDTH, 64), nn.Linear(64, TOKENS)
        self.register_buffer("rate", 100.0 ** -(torch.arange(0, WIDTH, 2) / WIDTH))

    def forward(self, ids: Tensor) -> Tensor:
        h = self.norm(self.tokens(ids))
        angle = torch.arange(ids.shape[1])[:, None] * self.rate
        q, k = (self._turned(layer(h), angle) for layer in (self.q, self.k))
        q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in (q, k, self.v(h)))
        h = h + F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return self.down(F.silu(self.gate(h)) * self.up(h))

    def _turned(self, x: Tensor, angle: Tensor) -> Tensor:
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.start = nn.Conv2d(3, WIDTH, 4, 4), nn.Parameter(torch.randn(1, 1, WIDTH))
        self.places = nn.Parameter(torch.randn(1, 17, WIDTH) * 0.02)
        self.attention, self.head = Attention(causal=False), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.start.expand(h.shape[0], -1, -1), h], 1) + self.places
        return self.head((h + self.attention(h))[:, 0])


class Mixture(nn.Module):
    """Dense mixture of experts."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(FEATURES, 4), nn.ModuleList(nn.Linear(FEATURES, CLASSES) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        every = torch.stack([expert(x) for expert in self.experts], 1)
        return (self.gate(x).softmax(-1)[:, :, None] * every).sum(1)


class TopMixture(nn.Module):
    """Sparse mixture: the two best experts, and which they were."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(FEATURES, 4), nn.Parameter(torch.randn(4, FEATURES, CLASSES) * 0.3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weight, chosen = self.gate(x).topk(2, -1)
        every = torch.einsum("bf,efc->bec", x, self.experts)
        best = every.gather(1, chosen[:, :, None].expand(-1, -1, CLASSES))
        return (weight.softmax(-1)[:, :, None] * best).sum(1), chosen


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 8))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return F.cosine_similarity(self.tower(a), self.tower(b), dim=-1)


class TwoTowers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(TOKENS, 8), nn.Embedding(TOKENS, 8)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return (F.normalize(self.users(user), dim=-1) * F.normalize(self.items(item), dim=-1)).sum(-1)


class WideAndDeep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(TOKENS, 8)
        self.deep = nn.Sequential(nn.Linear(FEATURES + 8, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
        self.wide = nn.Linear(FEATURES, 1)

    def forward(self, x: Tensor, category: Tensor) -> Tensor:
        return torch.sigmoid(self.wide(x) + self.deep(torch.cat([x, self.table(category[:, 0])], -1)))


class FactorizationMachine(nn.Module):
    """Rendle 2010."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.factors = nn.Linear(FEATURES, 1), nn.Parameter(torch.randn(FEATURES, 4))

    def forward(self, x: Tensor) -> Tensor:
        pairs = (x @ self.factors).square() - x.square() @ self.factors.square()
        return self.linear(x) + 0.5 * pairs.sum(-1, keepdim=True)


class BagOfWords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(TOKENS, WIDTH, mode="mean"), nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.bag(ids))


class GraphConvolution(nn.Module):
    """Kipf and Welling 2017, on a dense adjacency."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor, links: Tensor) -> Tensor:
        links = links.abs() + torch.eye(links.shape[1])
        scale = links.sum(-1).rsqrt()
        links = scale[:, :, None] * links * scale[:, None, :]
        return links @ self.two(F.relu(links @ self.one(x)))


class DictOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.mean, self.spread = nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = torch.tanh(self.body(x))
        return {"mean": self.mean(h), "spread": F.softplus(self.spread(h))}


class Labels(nn.Module):
    """Answers a class, a flag and a score: an integer, a boolean, a float."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = self.layer(x)
        return scores.argmax(-1), scores.amax(-1) > 0, scores


class Conditional(nn.Module):
    """A branch on the data, said in a way that exporters understand."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(FEATURES, CLASSES), nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.one(x), lambda x: self.other(x), (x,))


TABLE = {"x": (("batch", FEATURES), 0)}
SERIES = {"x": (("batch", "time", FEATURES), 0)}
IMAGE = {"x": (("batch", 3, SIDE, SIDE), 0)}
TEXT = {"ids": (("batch", "time"), TOKENS - 1)}
OF_LENGTH = SERIES | {"lengths": (("batch", 1), 4)}
LOGITS = ("logits",)


class Animal(NamedTuple):
    """inputs: name -> (axes, largest integer, or 0 where it is a float32)."""

    build: Callable[[], nn.Module]
    inputs: dict[str, tuple[tuple[str | int, ...], int]]
    outputs: tuple[str, ...] = LOGITS


ZOO: dict[str, Animal] = {
    "mlp": Animal(MLP, TABLE),
    "normed-mlp": Animal(NormedMLP, TABLE),
    "batch-norm-mlp": Animal(BatchNormMLP, TABLE),
    "residual-mlp": Animal(ResidualMLP, TABLE),
    "linear-regression": Animal(LinearRegression, TABLE, ("y",)),
    "softmax-classifier": Animal(SoftmaxClassifier, TABLE, ("probability",)),
    "siren": Animal(Siren, TABLE, ("y",)),
    "cnn": Animal(CNN, IMAGE),
    "cnn-1d": Animal(CNN1d, {"x": (("batch", FEATURES, 16), 0)}),
    "group-norm-cnn": Animal(GroupNormCNN, IMAGE),
    "resnet": Animal(ResNet, IMAGE),
    "mobilenet": Animal(MobileNet, IMAGE),
    "densenet": Animal(DenseNet, IMAGE),
    "inception": Animal(Inception, IMAGE),
    "unet": Animal(UNet, IMAGE, ("mask",)),
    "upsampler": Animal(Upsampler, IMAGE, ("image",)),
    "autoencoder": Animal(Autoencoder, IMAGE, ("image", "code")),
    "detector": Animal(Detector, IMAGE, ("boxes", "scores")),
    "tcn": Animal(TCN, SERIES, ("y",)),
    "lstm": Animal(LastLSTM, SERIES),
    "bi-gru": Animal(BiGRU, SERIES),
    "elman-rnn": Animal(ElmanRNN, SERIES, ("steps", "last")),
    "masked-gru": Animal(MaskedGRU, OF_LENGTH),
    "packed-lstm": Animal(PackedLSTM, OF_LENGTH),
    "attention-pool": Animal(AttentionPool, SERIES),
    "transformer-encoder": Animal(TransformerEncoder, TEXT),
    "decoder": Animal(Decoder, TEXT),
    "cached-decoder": Animal(
        CachedDecoder,
        {"ids": (("batch", 1), TOKENS - 1)} | dict.fromkeys(("keys", "values"), (("batch", "past", WIDTH), 0)),
        ("logits", "new_keys", "new_values"),
    ),
    "rotary-decoder": Animal(RotaryDecoder, TEXT),
    "vision-transformer": Animal(VisionTransformer, IMAGE),
    "mixture": Animal(Mixture, TABLE),
    "top-mixture": Animal(TopMixture, TABLE, ("logits", "experts")),
    "siamese": Animal(Siamese, {"a": (("batch", FEATURES), 0), "b": (("batch", FEATURES), 0)}, ("similarity",)),
    "two-towers": Animal(
        TwoTowers, {"user": (("batch", 1), TOKENS - 1), "item": (("batch", 1), TOKENS - 1)}, ("affinity",)
    ),
    "wide-and-deep": Animal(WideAndDeep, TABLE | {"category": (("batch", 1), TOKENS - 1)}, ("probability",)),
    "factorization-machine": Animal(FactorizationMachine, TABLE, ("y",)),
    "bag-of-words": Animal(BagOfWords, TEXT),
    "graph-convolution": Animal(
        GraphConvolution, {"x": (("batch", "nodes", FEATURES), 0), "links": (("batch", "nodes", "nodes"), 0)}
    ),
    "dict-output": Animal(DictOutput, TABLE, ("mean", "spread")),
    "conditional": Animal(Conditional, TABLE),
    "labels": Animal(Labels, TABLE, ("label", "sure", "scores")),
}


def build(kind: str) -> nn.Module:
    return ZOO[kind].build()
