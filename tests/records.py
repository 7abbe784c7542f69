"Lines of a run's metrics, and results of a test, as a run writes them."
import datetime
import json

import numpy as np

from skeletongait.evaluation.protocols import GalleryProbe
from skeletongait.evaluation.report import failures, write_results
from skeletongait.evaluation.ranking import embeddings_file, make_embedding_set, save_embeddings


NOW = datetime.datetime(2024, 1, 31, 12)

def at(seconds): return (NOW+datetime.timedelta(seconds=seconds)).isoformat(timespec='seconds')


def line(i, **more):
    values = {'triplet/loss': 1/i, 'softmax/loss': 2/i, 'softmax/accuracy': 1-1/i}
    times = dict(seconds=.5, data=.1, compute=.3, other=.1)
    return dict(iteration=i, time=at(i), values=values, lr=.1, **times, throughput=64., n=10) | more


def event(i, kind): return dict(iteration=i, time=at(i), event=kind)


def test(i, value=50.):
    primary_metric = dict(name='Rank-1', value=value)
    return dict(iteration=i, time=at(i), test={'Rank-1': value, 'mAP': 40.}, headline=primary_metric)


test.__test__ = False  # a record, not a test


def run_of(n, step=10):
    "The log lines of a run."
    return [line(i) for i in range(step, n*step+1, step)]


def write_records(path, records, mode='w'):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, mode) as f:
        f.writelines(json.dumps(o)+'\n' for o in records)


RULES = dict(gallery=dict(types=['nm-*']), probe=dict(types=['bg-*']), exclude=['view'])


def toy(n=8, types=('nm-01', 'nm-02', 'bg-01', 'cl-01'), views=('000', '045', '090'), noise=1.1, shape=(4, 16), seed=0):
    "Embeddings whose subjects can be told apart most of the time, and their names."
    rng = np.random.default_rng(seed)
    who = [(f'{i:03d}', t, v) for i in range(n) for t in types for v in views]
    subjects = rng.normal(size=(n, *shape))
    x = [subjects[int(s)] + noise*rng.normal(size=shape) for s, _, _ in who]
    return np.stack(x).astype(np.float32), tuple(zip(*who))


def write_test(root, name='run-00010', embeddings=True, told=True, protocol=RULES, probes=None, **about):
    x, who = toy(noise=1.6)
    test, protocol = make_embedding_set(x, *who), GalleryProbe.from_dict(protocol)
    stem = root/'results'/name
    if embeddings:
        save_embeddings(test, embeddings_file(stem.with_suffix('.json')))
    about = dict(metric='cos', protocol=protocol.to_dict(), iteration=10, **about)
    failed = failures(test, protocol, 'cos', probes) if told else None
    write_results(stem, protocol.results(test, 'cos', probes), about, failed)
    return test
