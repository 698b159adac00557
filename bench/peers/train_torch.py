"""The peer of `train_bench --what step`: optimiser steps of a Qwen3 in PyTorch, f32, on the CPU.

Answers each line of standard input, {"batch": samples, "steps": n}, with {"batch", "ms": [of each step], "loss"}; the first line
that it prints says that it is ready (the protocol of README.md). Samples are of one length, so nothing is padded.
"""

import argparse
import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

options = argparse.ArgumentParser()
for name, value in dict(layers=6, hidden=256, intermediate=640, heads=4, kv_heads=2, head_dim=64, vocabulary=560,
                        sample=256, threads=2).items():
    options.add_argument("--" + name.replace("_", "-"), type=int, default=value)
options.add_argument("--format", choices=["f32", "bf16"], default="f32", help="bf16: autocast")
o = options.parse_args()
torch.set_num_threads(o.threads)
torch.manual_seed(5)


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.width = width

    def forward(self, x):
        if hasattr(F, "rms_norm"):
            return F.rms_norm(x, (self.width,), self.weight, 1e-6)
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


def rotate(x, cos, sin):
    low, high = x.chunk(2, -1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


def attend(q, k, v, mask):
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    samples, heads, length, dim = q.shape
    groups = k.shape[1]
    q = q.reshape(samples, groups, heads // groups * length, dim)
    scores = (q @ k.transpose(-1, -2)).view(samples, heads, length, length) * dim**-0.5
    p = torch.softmax(scores + mask, -1).view(samples, groups, -1, length)
    return (p @ v).view(samples, heads, length, dim)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.sizes = [o.heads * o.head_dim, o.kv_heads * o.head_dim, o.kv_heads * o.head_dim]
        self.input_norm, self.post_norm = RmsNorm(o.hidden), RmsNorm(o.hidden)
        self.q_norm, self.k_norm = RmsNorm(o.head_dim), RmsNorm(o.head_dim)
        self.qkv = nn.Linear(o.hidden, sum(self.sizes), bias=False)
        self.o = nn.Linear(self.sizes[0], o.hidden, bias=False)
        self.gate_up = nn.Linear(o.hidden, 2 * o.intermediate, bias=False)
        self.down = nn.Linear(o.intermediate, o.hidden, bias=False)

    def forward(self, x, cos, sin, mask):
        samples, length, _ = x.shape
        q, k, v = self.qkv(self.input_norm(x)).split(self.sizes, -1)
        heads = lambda t: t.view(samples, length, -1, o.head_dim)
        q = rotate(self.q_norm(heads(q)).transpose(1, 2), cos, sin)
        k = rotate(self.k_norm(heads(k)).transpose(1, 2), cos, sin)
        attended = attend(q, k, heads(v).transpose(1, 2), mask)
        x = x + self.o(attended.transpose(1, 2).reshape(samples, length, -1))
        gate, up = self.gate_up(self.post_norm(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(o.vocabulary, o.hidden)
        self.layers = nn.ModuleList(Layer() for _ in range(o.layers))
        self.norm = RmsNorm(o.hidden)
        half = o.head_dim // 2
        angles = torch.outer(torch.arange(o.sample), 1e6 ** -(torch.arange(half) / half))
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        self.register_buffer("mask", torch.full((o.sample, o.sample), float("-inf")).triu(1))
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.05)

    def forward(self, ids):
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin, self.mask)
        return F.linear(self.norm(x), self.embedding.weight)


network = Network()
matrices = [p for p in network.parameters() if p.dim() > 1]
norms = [p for p in network.parameters() if p.dim() == 1]
optimiser = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}],
                              lr=3e-4, betas=(0.9, 0.95), foreach=True)


def step(ids):
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=o.format == "bf16"):
        logits = network(ids)
        loss = F.cross_entropy(logits.view(-1, o.vocabulary).float(), ids.roll(-1, 1).view(-1))
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return (time.perf_counter() - began) * 1e3, loss.item()


print(json.dumps({"ready": True, "torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
for line in sys.stdin:
    ask = json.loads(line)
    times = [step(torch.randint(o.vocabulary, (ask["batch"], o.sample))) for _ in range(ask["steps"])]
    print(json.dumps({"batch": ask["batch"], "ms": [ms for ms, _ in times], "loss": times[-1][1]}), flush=True)
