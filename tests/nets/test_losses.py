from types import SimpleNamespace
import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings, strategies as st
from ddp import run_in_ddp
from goldens import GOLDEN as GOLDEN_FOLDER
from skeletongait.core import SkeletonGaitError
from skeletongait.nets.losses import (
    CrossEntropyLoss,
    LossAggregator,
    TripletLoss,
    average,
    build_loss,
    gather,
    pairwise_distances,
    triplet_weights,
)

GOLDEN = GOLDEN_FOLDER/'losses.npz'
CFG = [
    dict(type='TripletLoss', log_prefix='triplet', loss_term_weight=0.7, margin=0.2),
    dict(
        type='CrossEntropyLoss',
        log_prefix='softmax',
        loss_term_weight=1.3,
        scale=16,
        label_smooth=True,
        eps=0.1,
        log_accuracy=True,
    ),
]


def naive_triplet(x_ncp, labels, margin):
    "Per strip, by loops over anchor, positive and negative."
    losses = []
    for s in range(x_ncp.shape[2]):
        d = pairwise_distances(x_ncp[..., s:s+1])[0]
        n = range(len(labels))
        costs = [
            d[a, p] - d[a, k] + margin
            for a in n
            for p in n
            for k in n
            if labels[a] == labels[p] and labels[a] != labels[k]
        ]
        costs = [c for c in costs if c > 0]
        losses.append(torch.stack(costs).mean() if costs else 0*x_ncp.sum())
    return torch.stack(losses)


@pytest.fixture(scope='module')
def golden():
    with np.load(GOLDEN) as z:
        return {k: torch.from_numpy(np.asarray(z[k])) for k in z}


@pytest.mark.parametrize('case', ('spread', 'close', 'equal'))
def test_triplet_golden(golden, case):
    x = golden[f'{case}_x'].requires_grad_()
    loss, info = TripletLoss(.2)(x, golden['labels'])
    loss.mean().backward()
    torch.testing.assert_close(loss.detach(), golden[f'{case}_triplet_per_strip'], atol=1e-8, rtol=0)
    torch.testing.assert_close(x.grad, golden[f'{case}_grad'], atol=1e-8, rtol=0)
    assert set(info) == {'loss', 'hard_loss', 'loss_num', 'mean_dist'}
    for k, v in info.items():
        assert not v.requires_grad
        torch.testing.assert_close(v, golden[f'{case}_{k}'].to(v.dtype), atol=1e-8, rtol=0)
    if case == 'equal':
        assert torch.equal(x.grad, torch.zeros_like(x))


def test_cross_entropy_golden(golden):
    logits = golden['logits'].requires_grad_()
    loss, info = CrossEntropyLoss(scale=16, label_smoothing=.1, log_accuracy=True)(logits, golden['labels'])
    loss.backward()
    torch.testing.assert_close(loss.detach(), golden['ce'], atol=1e-8, rtol=0)
    torch.testing.assert_close(logits.grad, golden['ce_grad'], atol=1e-8, rtol=0)
    torch.testing.assert_close(info['accuracy'], golden['accuracy'], atol=1e-8, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=9),
    st.integers(0, 2**32 - 1),
    st.sampled_from((0.0, 0.125, 0.2, 1.0)),
    st.booleans(),
)
def test_triplet_is_the_naive_one(labels, seed, margin, on_grid):
    "Any labels; on a grid of whole numbers many distances tie and many are 0."
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, (len(labels), 1, 2)).astype(float) if on_grid else rng.normal(size=(len(labels), 3, 2))
    x, labels = torch.tensor(x, requires_grad=True), torch.tensor(labels)
    ours, theirs = TripletLoss(margin)(x, labels)[0], naive_triplet(x, labels, margin)
    torch.testing.assert_close(ours, theirs, atol=1e-8, rtol=0)
    g_ours, = torch.autograd.grad(ours.mean(), x)
    g_theirs, = torch.autograd.grad(theirs.mean(), x)
    assert torch.isfinite(g_ours).all()
    torch.testing.assert_close(g_ours, g_theirs, atol=1e-8, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=10), st.integers(0, 2**32-1))
def test_triplet_ignores_the_order_of_the_batch(labels, seed):
    rng = np.random.default_rng(seed)
    x, labels = torch.tensor(rng.normal(size=(len(labels), 4, 3))), torch.tensor(labels)
    order = torch.tensor(rng.permutation(len(labels)))
    (a, info_a), (b, info_b) = TripletLoss()(x, labels), TripletLoss()(x[order], labels[order])
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)   # the distance of a sequence to itself rounds by its place
    assert torch.equal(info_a['loss_num'], info_b['loss_num'])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=10), st.integers(0, 2**32-1))
def test_weights_count_triplets(labels, seed):
    labels = torch.tensor(labels)
    n = len(labels)
    d = torch.tensor(np.random.default_rng(seed).integers(0, 4, (2, n, n)).astype(float))
    w = triplet_weights(d, labels, 1.)
    same = labels[:, None] == labels
    costly = ((d[..., :, None] + 1 - d[..., None, :]) > 0) & same[:, :, None] & ~same[:, None, :]
    assert torch.equal(w, costly.sum(3) - costly.sum(2))


def test_triplet_memory_is_pairs_not_triplets():
    "256 sequences x 16 strips: whatever autograd keeps is a few (p, n, n), far below one (p, n, n, n) of 1 GiB."
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        TripletLoss()(
            torch.randn(256, 8, 16, generator=torch.Generator().manual_seed(0), requires_grad=True),
            torch.arange(32).repeat_interleave(8),
        )
    assert sum(kept) < 20*16*256**2*4


def test_float64_stays_and_half_becomes_float32():
    x, labels = torch.randn(8, 4, 2, generator=torch.Generator().manual_seed(0)), torch.arange(4).repeat_interleave(2)
    for dtype, expected in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
    ):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            for term in (TripletLoss(), CrossEntropyLoss(log_accuracy=True)):
                loss, info = term(x.to(dtype), labels)
                assert loss.dtype == expected and {v.dtype for v in info.values()} == {expected}


def test_autocast_does_not_change_float32():
    x, labels = torch.randn(8, 4, 2, generator=torch.Generator().manual_seed(0)), torch.arange(4).repeat_interleave(2)
    plain = TripletLoss()(x, labels)[0]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(TripletLoss()(x, labels)[0], plain)


def test_non_finite_embeddings_show_in_the_loss():
    for bad in (float('nan'), float('inf')):
        x = torch.ones(4, 2, 1)
        x[1, 0, 0] = bad
        assert not torch.isfinite(TripletLoss()(x, torch.tensor([0, 0, 1, 1]))[0]).all()


def test_label_smoothing_zero_is_plain_cross_entropy():
    logits = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 1, 0])
    picked = -(4*logits).log_softmax(1)[torch.arange(5), labels]
    loss, info = CrossEntropyLoss(scale=4, label_smoothing=0)(logits, labels)
    torch.testing.assert_close(loss, picked.mean())
    assert set(info) == {'loss'}


def test_aggregator_one_process():
    rng = np.random.default_rng(0)
    out = SimpleNamespace(
        embeddings=torch.tensor(rng.normal(size=(8, 5, 4))), logits=torch.tensor(rng.uniform(-1, 1, (8, 6, 4)))
    )
    labels = torch.arange(4).repeat_interleave(2)
    total, info = LossAggregator(CFG)(out, labels)
    torch.testing.assert_close(
        total,
        0.7 * TripletLoss(0.2)(out.embeddings, labels)[0].mean() + 1.3 * CrossEntropyLoss()(out.logits, labels)[0],
    )
    assert set(info) == {
        'triplet/loss',
        'triplet/hard_loss',
        'triplet/loss_num',
        'triplet/mean_dist',
        'softmax/loss',
        'softmax/accuracy',
    }
    torch.testing.assert_close(
        LossAggregator(CFG[0])(out, labels)[0], 0.7 * TripletLoss(0.2)(out.embeddings, labels)[0].mean()
    )


@pytest.mark.parametrize('cfg, said', [
    (dict(type='TripletLos'), 'loss_cfg.type: found "TripletLos" .*; did you mean TripletLoss'),
    (dict(margin=.2), 'loss_cfg.type: missing; expected one of TripletLoss, CrossEntropyLoss'),
    (dict(type='TripletLoss', margn=.2), 'loss_cfg.margn: unknown key; did you mean margin'),
    (dict(type='CrossEntropyLoss', label_smoth=True), 'did you mean label_smooth'),
])
def test_wrong_configuration(cfg, said):
    with pytest.raises(SkeletonGaitError, match=said):
        build_loss(cfg)


def test_each_term_is_read_as_a_configuration_is():
    terms = LossAggregator([dict(type='TripletLoss', loss_term_weights=.5), dict(type='CrossEntropyLoss')])
    assert (terms.prefixes, terms.weights) == (['triplet', 'softmax'], [.5, 1])
    with pytest.raises(SkeletonGaitError, match=r'^loss_cfg\[1\].scale: found "16" .text., expected a number'):
        LossAggregator([CFG[0], CFG[1] | dict(scale='16')])
    says = r'^loss_cfg\[1\].margin: unknown key; it belongs at loss_cfg\[\].margin'
    with pytest.raises(SkeletonGaitError, match=says):
        LossAggregator([CFG[0], CFG[1] | dict(margin=1)])


def test_terms_need_their_own_prefix():
    with pytest.raises(SkeletonGaitError, match='each term needs its own'):
        LossAggregator([CFG[0], CFG[0]])


# Several ranks

def _batch():
    rng = np.random.default_rng(1)
    return torch.tensor(rng.normal(size=(12, 6))), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 0, 2, 1])


def _model(x, weights):
    w_emb, w_logits = weights
    embeddings = torch.einsum('nd,dcp->ncp', x, w_emb)
    return SimpleNamespace(embeddings=embeddings, logits=torch.einsum('ncp,ckp->nkp', embeddings, w_logits).tanh())


def _weights():
    rng = np.random.default_rng(2)
    return [torch.tensor(rng.normal(size=s)*.2, requires_grad=True) for s in ((6, 5, 4), (5, 4, 4))]


def _loss_and_grads(x, labels):
    weights = _weights()
    total, info = LossAggregator(CFG)(_model(x, weights), labels)
    total.backward()
    return total.detach(), [w.grad for w in weights], info


def _one_rank(expected):
    total, grads, info = _loss_and_grads(*(o.chunk(dist.get_world_size())[dist.get_rank()] for o in _batch()))
    for g in grads:
        dist.all_reduce(g)
        g /= dist.get_world_size()          # what DistributedDataParallel does
    torch.testing.assert_close((total, grads, info), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize('ranks', (2, 3))
def test_ranks_together_are_one_process(ranks):
    run_in_ddp(ranks, _one_rank, _loss_and_grads(*_batch()))


class _Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = torch.nn.ParameterList(w.detach() for w in _weights())
    def forward(self, x): return vars(_model(x, self.weights))


def _one_ddp_rank(expected):
    "The same through DistributedDataParallel itself."
    model = torch.nn.parallel.DistributedDataParallel(_Tiny())
    x, labels = (o.chunk(2)[dist.get_rank()] for o in _batch())
    total, _ = LossAggregator(CFG)(SimpleNamespace(**model(x)), labels)
    total.backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], expected, atol=1e-6, rtol=0)


def test_under_ddp(): run_in_ddp(2, _one_ddp_rank, _loss_and_grads(*_batch())[1])


def _gather_and_average():
    rank = dist.get_rank()
    # rank after rank, whole numbers stay
    assert gather(torch.full((2, 3), rank)).tolist() == [[0] * 3] * 2 + [[1] * 3] * 2
    x = torch.full((2,), float(rank), requires_grad=True)
    assert average(x).tolist() == [.5, .5]
    average(x).sum().backward()
    assert x.grad.tolist() == [1, 1]
    with pytest.raises(SkeletonGaitError, match=r'\[1, 2\] sequences: expected the same number'):
        gather(torch.zeros(rank+1, 3))


def test_gather_and_average(): run_in_ddp(2, _gather_and_average)


def test_without_ranks():
    x = torch.ones(2)
    assert gather(x) is x and average(x) is x


def _fails_on_rank_1():
    assert dist.get_rank() == 0


def test_run_in_ddp_reports_failures():
    with pytest.raises(Exception, match='_fails_on_rank_1'):
        run_in_ddp(2, _fails_on_rank_1)
