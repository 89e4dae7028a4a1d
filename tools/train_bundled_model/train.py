import json, random, time, sys, math, os, numpy as np, torch, torch.nn as nn, torch.nn.functional as F
from tokenizers import Tokenizer, models, trainers, pre_tokenizers, decoders, Regex
from safetensors.torch import save_file
MINUTES = float(sys.argv[1])
OUT = sys.argv[2]
torch.manual_seed(0)
random.seed(0)
torch.set_num_threads(2)
docs = json.load(open('corpus.json'))
SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
tok = Tokenizer(models.BPE())
tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"), 'isolated'), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
tok.decoder = decoders.ByteLevel()
tok.train_from_iterator([d['title'] + '\n' + d['text'] for d in docs], trainers.BpeTrainer(vocab_size=4096, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
os.makedirs(OUT, exist_ok=True)
tok.save(OUT + '/tokenizer.json')
H, L, FF, NH, KV, V = (256, 6, 704, 4, 2, 4096)
HD = H // NH

class Attn(nn.Module):

    def __init__(s):
        super().__init__()
        s.q_proj = nn.Linear(H, H)
        s.k_proj = nn.Linear(H, KV * HD)
        s.v_proj = nn.Linear(H, KV * HD)
        s.o_proj = nn.Linear(H, H, bias=False)

    def forward(s, x, cos, sin):
        B, T, _ = x.shape
        q = s.q_proj(x).view(B, T, NH, HD).transpose(1, 2)
        k = s.k_proj(x).view(B, T, KV, HD).transpose(1, 2)
        v = s.v_proj(x).view(B, T, KV, HD).transpose(1, 2)
        rot = lambda t: t * cos + torch.cat([-t[..., HD // 2:], t[..., :HD // 2]], -1) * sin
        q, k = (rot(q), rot(k))
        k = k.repeat_interleave(NH // KV, 1)
        v = v.repeat_interleave(NH // KV, 1)
        return s.o_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, H))

class MLP(nn.Module):

    def __init__(s):
        super().__init__()
        s.gate_proj = nn.Linear(H, FF, bias=False)
        s.up_proj = nn.Linear(H, FF, bias=False)
        s.down_proj = nn.Linear(FF, H, bias=False)

    def forward(s, x):
        return s.down_proj(F.silu(s.gate_proj(x)) * s.up_proj(x))

class Block(nn.Module):

    def __init__(s):
        super().__init__()
        s.self_attn = Attn()
        s.mlp = MLP()
        s.input_layernorm = nn.RMSNorm(H, 1e-06)
        s.post_attention_layernorm = nn.RMSNorm(H, 1e-06)

    def forward(s, x, c, n):
        x = x + s.self_attn(s.input_layernorm(x), c, n)
        return x + s.mlp(s.post_attention_layernorm(x))

class M(nn.Module):

    def __init__(s):
        super().__init__()
        s.embed_tokens = nn.Embedding(V, H)
        s.layers = nn.ModuleList((Block() for _ in range(L)))
        s.norm = nn.RMSNorm(H, 1e-06)

    def forward(s, ids):
        T = ids.shape[1]
        f = torch.outer(torch.arange(T).float(), 10000.0 ** (-torch.arange(0, HD, 2).float() / HD))
        e = torch.cat([f, f], -1)
        c, n = (e.cos(), e.sin())
        x = s.embed_tokens(ids)
        for l in s.layers:
            x = l(x, c, n)
        return F.linear(s.norm(x), s.embed_tokens.weight)
m = M()
for k, p in m.named_parameters():
    if p.ndim == 2:
        nn.init.normal_(p, std=0.02 * (1 / math.sqrt(2 * L) if 'o_proj' in k or 'down_proj' in k else 1))
    elif 'bias' in k:
        nn.init.zeros_(p)
Q = ['{}', 'Explain: {}', 'What does the Rust Book say about "{}"?', 'Tell me about {}.', '{}?']
enc = {i: tok.encode(d['text']).ids for i, d in enumerate(docs)}
print('params', sum((p.numel() for p in m.parameters())) / 1000000.0, 'tokens', sum(map(len, enc.values())), flush=True)
S, E = (tok.token_to_id('<|im_start|>'), tok.token_to_id('<|im_end|>'))
qenc = {(i, j): tok.encode('user\n' + q.format(d['title'])).ids for i, d in enumerate(docs) for j, q in enumerate(Q)}
asst = tok.encode('assistant\n').ids
nl = tok.encode('\n').ids
T, B = (512, 4)

def epoch():
    order = list(range(len(docs)))
    random.shuffle(order)
    rows = []
    for i in order:
        d = [S] + qenc[i, random.randrange(len(Q))] + [E] + nl + [S] + asst + enc[i] + [E] + nl
        rows.append((d + [0] * (T + 1))[:T + 1])
        if len(d) > T + 1:
            o = random.randrange(64, T)
            while o + 64 < len(d):
                r = d[o:o + T + 1]
                rows.append((r + [0] * (T + 1))[:T + 1])
                o += T
    random.shuffle(rows)
    for k in range(0, len(rows) - B + 1, B):
        yield torch.tensor(rows[k:k + B])
dec = [p for p in m.parameters() if p.ndim == 2]
nod = [p for p in m.parameters() if p.ndim < 2]
LR = 0.003
o = torch.optim.AdamW([{'params': dec, 'weight_decay': 0.05}, {'params': nod, 'weight_decay': 0.0}], lr=LR, betas=(0.9, 0.95), fused=True)
t0 = time.time()
step = 0
acc = n = 0
ep = 0
frac = lambda: (time.time() - t0) / (MINUTES * 60)
BF = len(sys.argv) > 3 and sys.argv[3] == 'bf16'
while frac() < 1:
    for x in epoch():
        f = frac()
        if f >= 1:
            break
        lr = LR * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, f))))
        for g in o.param_groups:
            g['lr'] = lr
        with torch.autocast('cpu', torch.bfloat16, enabled=BF):
            lo = m(x[:, :-1])
        l = F.cross_entropy(lo.float().reshape(-1, V), x[:, 1:].reshape(-1), ignore_index=0)
        o.zero_grad(set_to_none=True)
        l.backward()
        nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        o.step()
        acc += l.item()
        n += 1
        step += 1
        if step % 50 == 0:
            print(f'{step} ep{ep} loss {acc / n:.3f} {step * B * T / (time.time() - t0):.0f} tok/s {f * 100:.0f}%', flush=True)
            acc = n = 0
    ep += 1
save_file({'model.' + k: v.detach().contiguous() for k, v in m.state_dict().items()}, OUT + '/master.safetensors', metadata={'format': 'pt'})
print('saved', step, ep)
