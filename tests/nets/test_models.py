"SkeletonGait and SkeletonGait++: the published implementation's numbers, and what the chapter on models promises."
import copy
import io
import pickle
import numpy as np
import pytest
import torch
from torch import nn
from hypothesis import given, settings, strategies as st
from skeletongait.core import SkeletonGaitError
from skeletongait.nets.losses import CrossEntropyLoss, TripletLoss
from skeletongait.nets.models import FUSIONS, SkeletonGait, SkeletonGaitPP, build_model, model_class
from goldens import fill, load

TINY = [
    'skeletongait_tiny',
    'skeletongait_tiny_2d',
    'skeletongait_tiny_3d',
    'skeletongaitpp_tiny',
    'skeletongaitpp_tiny_w48_emb2',
]
FULL = ['skeletongait_Gait3D', 'skeletongaitpp_Gait3D']
ALL = TINY + FULL

def cfg(model='SkeletonGait', class_num=5, use_emb2=False, **backbone):
    base = (
        dict(in_channels=3, blocks=[1, 1, 1, 1], C=1)
        if model == 'SkeletonGaitPP'
        else dict(in_channels=2, layers=[1, 1, 1, 1], channels=[4, 8, 16, 32])
    )
    return dict(model=model, Backbone=base | backbone, SeparateBNNecks=dict(class_num=class_num), use_emb2=use_emb2)

def rand(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random(shape, dtype=np.float32))

def close(a, b, tol): # relative to the largest value
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    assert a.shape == b.shape
    assert np.abs(a-b).max() <= tol*np.abs(b).max()

def train_losses(model, x, labels):
    out = model(x)
    tri, tri_info = TripletLoss(margin=.2)(out.embeddings, labels)
    ce, ce_info = CrossEntropyLoss(scale=16, label_smoothing=.1, log_accuracy=True)(out.logits, labels)
    return tri.mean(), ce.mean(), tri_info, ce_info

# --- goldens

@pytest.mark.parametrize('name', ALL)
def test_state_dict(name):
    d = load(f'model_{name}')
    state = build_model(d['model_cfg']).state_dict()
    assert list(state) == list(d['keys'])
    assert [str(list(v.shape)) for v in state.values()] == list(d['shapes'])

@pytest.mark.parametrize('name', ALL)
def test_eval(name):
    d = load(f'model_{name}')
    model, x = fill(build_model(d['model_cfg'])).eval(), torch.from_numpy(d['x'])
    with torch.no_grad():
        out, packed = model(x), model(x.flatten(0, 1)[None], torch.from_numpy(d['packed_lengths']))
    close(out.embeddings, d['eval_embed1'], 1e-5)
    close(out.logits[:, :50], d['eval_logits'], 1e-5)
    close(out.inference, d['eval_inference'], 1e-5)
    close(packed.inference, d['packed_inference'], 1e-5)

@pytest.mark.parametrize('name', ALL)
def test_first_losses_float32(name):
    d = load(f'model_{name}')
    tri, ce, _, info = train_losses(
        fill(build_model(d['model_cfg'])).train(), torch.from_numpy(d['x']), torch.from_numpy(d['labels'])
    )
    np.testing.assert_allclose(
        [tri.item(), ce.item(), info['accuracy'].mean().item()], d['losses_float32_step1'][0], rtol=1e-4
    )

@pytest.mark.parametrize(
    'name,steps,memory_format',
    [(o, 3, f) for o in TINY for f in (torch.contiguous_format, torch.channels_last_3d)]
    + [(o, 1, torch.contiguous_format) for o in FULL]
    + [pytest.param(o, 3, torch.channels_last_3d, marks=pytest.mark.slow) for o in FULL],
)
def test_training_float64(name, steps, memory_format):
    d = load(f'model_{name}')
    model, labels = fill(build_model(d['model_cfg'])).double().train(), torch.from_numpy(d['labels'])
    x = torch.from_numpy(d['x']).double().contiguous(memory_format=memory_format)
    opt = torch.optim.SGD(model.parameters(), lr=.01, momentum=.9, weight_decay=5e-4)
    for step, (tri_want, ce_want, accuracy_want) in enumerate(d['losses'][:steps]):
        tri, ce, info, ce_info = train_losses(model, x, labels)
        np.testing.assert_allclose(
            [tri.item(), ce.item(), ce_info['accuracy'].mean().item()],
            [tri_want, ce_want, accuracy_want],
            rtol=1e-5,
            atol=1e-12,
        )
        opt.zero_grad()
        (tri + ce).backward()
        if step == 0:
            grads = {k: p.grad.norm().item() for k, p in model.named_parameters()}
            np.testing.assert_allclose([grads[k] for k in d['grad_keys']], d['grad_norms'], rtol=1e-5, atol=1e-9)
            for k, v in d['triplet_info'].items():
                np.testing.assert_allclose(torch.as_tensor(info[k]).detach().numpy(), v, rtol=1e-5, atol=1e-9)
        opt.step()

# --- sizes of the networks

@pytest.mark.parametrize(
    'name,blocks,classes,millions',
    [
        ('SkeletonGait', [1, 4, 4, 1], 3000, 25.49),
        ('SkeletonGait', [1, 1, 1, 1], 100, 8.45),
        ('SkeletonGaitPP', [1, 4, 4, 1], 3000, 25.57),
        ('SkeletonGaitPP', [1, 1, 1, 1], 100, 8.52),
    ],
)
def test_parameters(name, blocks, classes, millions):
    size = dict(blocks=blocks, C=2) if name == 'SkeletonGaitPP' else dict(layers=blocks, channels=[64, 128, 256, 512])
    model = build_model(cfg(name, class_num=classes, **size))
    assert round(sum(p.numel() for p in model.parameters())/1e6, 2) == millions

@pytest.mark.parametrize('name,h,w', [('SkeletonGait', 64, 44), ('SkeletonGait', 64, 88), ('SkeletonGait', 128, 88)] +
                                     [('SkeletonGaitPP', h, w) for h in (64, 128) for w in (44, 48, 88, 96)])
def test_sizes_accepted(name, h, w):
    model = build_model(cfg(name)).eval()
    with torch.no_grad():
        out = model(rand(2, 2, model.in_channels, h, w))
    assert out.embeddings.shape[::2] == (2, 16) and out.logits.shape == (2, 5, 16)

@pytest.mark.parametrize(
    'name,h,w',
    [
        ('SkeletonGait', 64, 48),
        ('SkeletonGait', 64, 64),
        ('SkeletonGaitPP', 64, 64),
        ('SkeletonGaitPP', 64, 45),
        ('SkeletonGait', 60, 44),
        ('SkeletonGait', 32, 44),
        ('SkeletonGait', 0, 44),
    ],
)
def test_sizes_refused(name, h, w):
    model = build_model(cfg(name))
    with pytest.raises(SkeletonGaitError) as e:
        model(torch.zeros(1, 2, model.in_channels, h, w))
    assert f'{h} high and {w} wide' in str(e.value) and ', '.join(map(str, model.widths)) in str(e.value)
    with pytest.raises(SkeletonGaitError, match='a/b/c.pkl: found'):
        type(model).check_size(h, w, 'a/b/c.pkl')

# --- packed sequences

@pytest.mark.parametrize(
    'name,backbone',
    [('SkeletonGait', dict(mode=m)) for m in ('p3d', '2d', '3d')]
    + [('SkeletonGaitPP', dict(fusion=f)) for f in ('attention', 'CatFusion', 'PlusFusion')],
)
@settings(max_examples=6, deadline=None)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 9))
def test_packed_equals_alone(name, backbone, lengths, seed):
    model = build_model(cfg(name, **backbone), seed=seed).eval()
    row = rand(1, sum(lengths), model.in_channels, 64, 44, seed=seed)
    with torch.no_grad():
        alone = [model(o) for o in row.split(lengths, 1)]
        packed = model(row, lengths)
    for a, p in zip(map(torch.cat, zip(*alone)), packed):
        close(p, a, 1e-5)

def test_packed_gradients_stay_inside():
    model = build_model(cfg()).eval()
    row = rand(1, 6, 2, 64, 44).requires_grad_()
    model(row, [2, 1, 3]).embeddings[1].square().sum().backward()
    touched = row.grad[0].abs().amax((1, 2, 3)) > 0
    assert touched.tolist() == [False, False, True, False, False, False]

def test_packed_training_equals_batch():
    x = rand(3, 4, 2, 64, 44).double()
    a, b = build_model(cfg()).double(), build_model(cfg()).double()
    out_a, out_b = a(x), b(x.flatten(0, 1)[None], [4, 4, 4])
    close(out_a.logits.detach(), out_b.logits.detach(), 1e-9)
    for k, v in a.state_dict().items():
        close(b.state_dict()[k], v, 1e-9)   # batch norms have seen the same

def test_packed_training_of_unequal_lengths():
    model = build_model(cfg())
    out = model(rand(1, 9, 2, 64, 44), [1, 5, 3])
    (out.embeddings.square().mean() + out.logits.square().mean()).backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in model.parameters())

@pytest.mark.parametrize(
    'shape,lengths',
    [
        ((1, 5, 2, 64, 44), [2, 2]),
        ((1, 5, 2, 64, 44), [5, 0]),
        ((1, 5, 2, 64, 44), []),
        ((2, 5, 2, 64, 44), [5, 5]),
        ((1, 5, 2, 64, 44), [7, -2]),
    ],
)
def test_lengths_refused(shape, lengths):
    with pytest.raises(SkeletonGaitError, match='do not fit'):
        build_model(cfg())(torch.zeros(shape), lengths)

@pytest.mark.parametrize('shape', [(2, 2, 64, 44), (0, 3, 2, 64, 44), (2, 0, 2, 64, 44), (1, 2, 3, 64, 44)])
def test_shapes_refused(shape):
    with pytest.raises(SkeletonGaitError):
        build_model(cfg())(torch.zeros(shape))

# --- how a network starts

def test_initialisation():
    model = build_model(cfg('SkeletonGaitPP'))
    for m in model.modules():
        if isinstance(m, (nn.Conv2d, nn.Conv3d)):
            fan_in, fan_out = m.weight[0].numel(), m.weight.numel()//m.in_channels
            bound = (6/(fan_in + fan_out))**.5
            assert m.bias is None and bound*.8 < m.weight.abs().max() <= bound
        elif isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert not m.bias.any() and (m.weight-1).abs().max() < .12 and m.weight.unique().numel() > 1
    for w in (model.FCs.fc_bin, model.BNNecks.fc_bin):
        p, i, o = w.shape
        bound = (6/(i*o + p*o))**.5
        assert bound*.95 < w.abs().max() <= bound and abs(w.std()/bound*3**.5 - 1) < .05

def test_map_stream_starts_as_a_copy():
    model = build_model(cfg('SkeletonGaitPP', C=1))
    sil, maps = model.sil_layer1.state_dict(), model.map_layer1.state_dict()
    assert list(sil) == list(maps) and all(torch.equal(sil[k], maps[k]) for k in sil)
    with torch.no_grad():
        next(model.map_layer1.parameters()).add_(1)     # a copy, not the same tensor
    assert not torch.equal(next(model.sil_layer1.parameters()), next(model.map_layer1.parameters()))

def test_seed():
    a, b, c = (build_model(cfg(), seed=s).state_dict() for s in (3, 3, 4))
    assert all(torch.equal(a[k], b[k]) for k in a) and not torch.equal(a['FCs.fc_bin'], c['FCs.fc_bin'])
    state = torch.get_rng_state()
    build_model(cfg())
    assert torch.equal(state, torch.get_rng_state())

# --- configurations

def test_names():
    assert model_class(dict(model='DeepGaitV2')) is model_class(dict(model='SkeletonGait')) is SkeletonGait
    assert model_class(dict(model='SkeletonGaitPP')) is SkeletonGaitPP
    assert SkeletonGait.widths == (44, 88) and SkeletonGaitPP.widths == (44, 48, 88, 96)

@pytest.mark.parametrize(
    'change,message',
    [
        (dict(model='skeletongait'), r'did you mean SkeletonGait\?'),
        (dict(model='SkeletonGait++'), r'did you mean SkeletonGaitPP\?'),
        (dict(model=None), 'model_cfg.model: found null, expected one of DeepGaitV2, SkeletonGait, SkeletonGaitPP'),
        (dict(Backbone=cfg()['Backbone'] | dict(mode='P3D ')),
            r'Backbone.mode: found "P3D " .*, expected one of p3d, 2d, 3d; did you mean p3d\?'),
        (dict(Backbone=cfg()['Backbone'] | dict(chanels=1)),
            r'model_cfg.Backbone.chanels: unknown key; did you mean channels\?'),
        (
            dict(Backbone=cfg()['Backbone'] | dict(layers=[1])),
            'model_cfg.Backbone.layers: found .*expected a list of 4, each entry a whole number',
        ),
        (dict(Backbone=dict(in_channels=2)), 'model_cfg.Backbone.layers: not set'),
        (dict(Backbone=None),
            'model_cfg.Backbone: found null, expected a mapping with some of the keys in_channels, layers'),
        (dict(SeparateBNNecks={}), 'model_cfg.SeparateBNNecks.class_num: not set'),
        (dict(use_emb2=1), 'model_cfg.use_emb2: found 1 .*, expected true or false'),
        (dict(use_emb=True), r'model_cfg.use_emb: unknown key; did you mean use_emb2\?'),
        (dict(Backbone=dict(blocks=[1]*4)), r'model_cfg.Backbone.blocks: unknown key; .*\(for SkeletonGaitPP\)'),
        (cfg('SkeletonGaitPP', C=.3), 'model_cfg.Backbone.C: found C = 0.3, which makes 9.6 channels'),
        (cfg('SkeletonGaitPP', fusion='CatFuson'),
            r'model_cfg.Backbone.fusion: found "CatFuson" .*did you mean CatFusion\?'),
    ],
)
def test_configuration_refused(change, message):
    with pytest.raises(SkeletonGaitError, match=message):
        build_model(cfg() | change)

def test_embedding_in_use():
    x = rand(2, 2, 2, 64, 44)
    one, two = build_model(cfg()).eval()(x), build_model(cfg(use_emb2=True)).eval()(x)
    assert one.inference is one.embeddings and torch.equal(one.embeddings, two.embeddings)
    close(two.inference.norm(dim=1).detach(), np.ones((2, 16)), 1e-5)

@pytest.mark.parametrize('fusion,keys', [('CatFusion', 1), ('PlusFusion', 0), ('AttentionFusion', 13)])
def test_fusions(fusion, keys):
    model = build_model(cfg('SkeletonGaitPP', fusion=fusion))
    assert isinstance(model.fusion, FUSIONS[fusion]) and len(model.fusion.state_dict()) == keys

def test_silhouettes_alone(): # one channel: DeepGaitV2
    assert build_model(cfg(in_channels=1)).eval()(rand(1, 3, 1, 64, 44)).embeddings.shape == (1, 16, 16)

@pytest.mark.parametrize('mode', ['p3d', '2d', '3d'])
@pytest.mark.parametrize('channels', [[4, 6, 10, 12], [4, 4, 8, 8], [8, 4, 2, 3], [8]*4])
def test_embedding_is_as_wide_as_the_third_stage(channels, mode):
    "Whatever the widths: the published code takes `channels[2]`, half of `channels[3]` in its own settings only."
    model = build_model(cfg(mode=mode, channels=channels, class_num=7)).eval()
    c3, c4 = channels[2:]
    assert (model.FCs.fc_bin.shape, model.BNNecks.bn1d.weight.shape, model.BNNecks.fc_bin.shape) == (
        (16, c4, c3),
        (16 * c3,),
        (16, c3, 7),
    )
    with torch.no_grad():
        out = model(rand(2, 3, 2, 64, 44))
    assert [o.shape for o in out] == [(2, c3, 16), (2, 7, 16), (2, c3, 16)]

def test_a_silhouette_alone_is_not_enough_for_two_streams():
    with pytest.raises(SkeletonGaitError, match='model_cfg.Backbone.in_channels: found 1 .*, expected at least 2'):
        build_model(cfg('SkeletonGaitPP', in_channels=1))
    with pytest.raises(SkeletonGaitError, match='in_channels: found 1, expected 2 or more'):
        SkeletonGaitPP(in_channels=1, blocks=[1]*4, C=1, class_num=5)
    with pytest.raises(SkeletonGaitError, match="mode 'p4d' is not known; did you mean 'p3d'"):
        SkeletonGait(in_channels=2, layers=[1]*4, channels=[4]*4, class_num=5, mode='p4d')

@pytest.mark.parametrize(
    'backbone, message',
    [
        (dict(channels=[4, 8, 16, 0]), 'model_cfg.Backbone.channels: found .*, expected at least 1'),
        (dict(layers=[1, 0, 1, 1]), 'model_cfg.Backbone.layers: found .*, expected at least 1'),
    ],
)
def test_empty_stages_are_refused(backbone, message):
    with pytest.raises(SkeletonGaitError, match=message):
        build_model(cfg(**backbone))

# --- life in PyTorch

NETS = [cfg(), cfg(mode='3d'), cfg(mode='2d'), cfg('SkeletonGaitPP')]

@pytest.mark.parametrize('model_cfg', NETS)
def test_autocast(model_cfg):
    model = build_model(model_cfg)
    x = rand(4, 3, model.in_channels, 64, 44)
    full = model.eval()(x)
    with torch.autocast('cpu', torch.bfloat16):
        half = model(x)
    assert all(o.dtype == torch.float32 for o in half)       # pooling and head stay in full precision
    close(half.embeddings.detach(), full.embeddings.detach(), .05)
    with torch.autocast('cpu', torch.bfloat16):
        out = model.train()(x)
    (out.embeddings.square().mean() + out.logits.square().mean()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())

@pytest.mark.parametrize('model_cfg', NETS)
def test_memory_order_of_the_input(model_cfg):
    model = build_model(model_cfg).double().eval()
    x = rand(2, 3, model.in_channels, 64, 44).double()
    want = model(x).inference.detach()
    for y in (
        x.contiguous(memory_format=torch.channels_last_3d),
        x.transpose(1, 2).contiguous().transpose(1, 2),
        x.flip(0)[[1, 0]],
    ):
        close(model(y).inference.detach(), want, 1e-12)

@pytest.mark.parametrize('model_cfg', NETS)
def test_copies(model_cfg):
    model = build_model(model_cfg).eval()
    x, f = rand(1, 2, model.in_channels, 64, 44), io.BytesIO()
    torch.save(model.state_dict(), f)
    f.seek(0)
    loaded = build_model(model_cfg, seed=1).eval()
    loaded.load_state_dict(torch.load(f, weights_only=True), strict=True)
    for other in (loaded, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(other(x).inference, model(x).inference)

@pytest.mark.parametrize('model_cfg', NETS)
def test_sync_batchnorm(model_cfg):
    model = build_model(model_cfg).eval()
    sync = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    def count(m, cls):
        return sum(isinstance(o, cls) for o in m.modules())

    assert count(sync, nn.SyncBatchNorm) == count(model, nn.modules.batchnorm._BatchNorm) > 0
    assert list(sync.state_dict()) == list(model.state_dict())
    x = rand(1, 2, model.in_channels, 64, 44)
    assert torch.equal(sync(x).inference, model(x).inference)

@pytest.mark.parametrize('model_cfg', NETS)
def test_gradients_keep_the_weights_strides(model_cfg): # else distributed training warns
    model = build_model(model_cfg)
    out = model(rand(2, 2, model.in_channels, 64, 44))
    (out.embeddings.square().mean() + out.logits.square().mean()).backward()
    assert [k for k, p in model.named_parameters() if p.grad.stride() != p.stride()] == []

def _ddp_step(model_cfg):
    torch.set_num_threads(1)
    model = build_model(model_cfg, seed=torch.distributed.get_rank())
    ddp = nn.parallel.DistributedDataParallel(model)     # takes rank 0's weights
    out = ddp(rand(2, 2, model.in_channels, 64, 44, seed=torch.distributed.get_rank()))
    (out.embeddings.square().mean() + out.logits.square().mean()).backward()
    own = torch.cat([p.grad.flatten() for p in model.parameters()])
    first = own.clone()
    torch.distributed.broadcast(first, 0)
    assert own.abs().sum() > 0 and torch.equal(own, first)

def test_distributed():
    from ddp import run_in_ddp
    run_in_ddp(2, _ddp_step, cfg('SkeletonGaitPP'))
