"Linking maps and silhouettes: every sentence of what the script promises, with good and with bad trees."
import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scripts import LAUNCHES, environment, files, start, wait_for

from skeletongait.core import SkeletonGaitError, one_line, save_pickle
from skeletongait.files.tree import read_tree
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.cli import arg_parser
from skeletongait.prepare.link_tree import TRIMS, in_threads, link, list_silhouettes, mismatch
from skeletongait.ln_sil_heatmap import ln_sil_heatmap
from skeletongait.files.arrays import load_array, load_pickle


@pytest.fixture(scope='module')
def maps(walkers, tmp_path_factory):
    "The maps of the walkers' poses."
    root = tmp_path_factory.mktemp('maps')
    for seq, (f,) in read_tree(walkers/'pose').sequences.items():
        save_pickle(pose_to_heatmap(load_pickle(f)), seq.path(root)/f.name)
    return root


@pytest.fixture
def pair(walkers, maps, tmp_path):
    "A copy of maps and silhouettes to break."
    shutil.copytree(maps, tmp_path/'maps')
    shutil.copytree(walkers/'silhouette', tmp_path/'sil')
    return tmp_path


def link_all(root, **kw):
    return ln_sil_heatmap(str(root/'maps'), str(root/'sil'), str(root/'linked'), **kw)


def test_links(pair):
    assert link_all(pair) == 0
    linked = read_tree(pair/'linked').sequences
    assert len(linked) == 12
    for seq, fs in linked.items():
        assert [f.name for f in fs] == ['0_heatmap.pkl', '1_sil.pkl']
        for f, side in zip(fs, ('maps', 'sil')):
            assert f.is_symlink() and os.path.isabs(os.readlink(f))
            assert f.resolve() == next(seq.path(pair/side).iterdir()).resolve()


def test_second_run_changes_nothing_and_fixes_stale_links(pair):
    assert link_all(pair) == 0
    stamp = {f: os.lstat(f).st_ino for fs in read_tree(pair/'linked').sequences.values() for f in fs}
    stale = next(iter(stamp))
    stale.unlink()
    stale.symlink_to(pair/'gone.pkl')
    assert link_all(pair) == 0
    assert {f: os.lstat(f).st_ino for f in stamp if f != stale} == {f: i for f, i in stamp.items() if f != stale}
    assert stale.exists()


def test_relative_paths_and_odd_names(pair, monkeypatch):
    (pair/'maps'/'000').rename(pair/'maps'/'a b; $(x)&')
    (pair/'sil'/'000').rename(pair/'sil'/'a b; $(x)&')
    monkeypatch.chdir(pair)
    assert ln_sil_heatmap('maps', 'sil', 'out put') == 0
    monkeypatch.chdir('/')
    linked = read_tree(pair/'out put').sequences
    assert len(linked) == 12
    assert all(os.path.isabs(os.readlink(f)) and f.is_file() for fs in linked.values() for f in fs)


def test_what_does_not_match_is_listed(pair, capsys):
    seqs = list(read_tree(pair/'maps').sequences)
    shutil.rmtree(seqs[0].path(pair/'maps'))
    shutil.rmtree(seqs[1].path(pair/'sil'))
    def first(i): return next(seqs[i].path(pair/'sil').iterdir())
    save_pickle(load_pickle(first(2))[1:], first(2))
    save_pickle(np.zeros((6, 64, 32), np.uint8), first(3))
    shutil.copy(first(4), first(4).with_name('second.pkl'))
    first(5).write_bytes(b'')
    assert link_all(pair) == 1
    out = capsys.readouterr().out
    expected = [
        f'only silhouettes: {"/".join(seqs[0])}',
        f'only maps: {"/".join(seqs[1])}',
        '6 frames of maps, 5 of silhouettes',
        'silhouettes of 64 x 32 (height x width)',
        f'{"/".join(seqs[4])}: several files',
        f'failed: {first(5)}: ',
        '6 sequences linked (6 new or changed, 0 as they were), 4 failed, '
        '1 with maps only, 1 with silhouettes only',
    ]
    for text in expected:
        assert text in out, text
    assert list(read_tree(pair/'linked').sequences) == seqs[6:]


def test_a_pair_that_stopped_matching_loses_its_links(pair):
    assert link_all(pair) == 0
    seq, (path,) = next(iter(read_tree(pair/'sil').sequences.items()))
    save_pickle(np.zeros((1, 64, 64), np.uint8), path)
    assert link_all(pair) == 1
    assert seq not in read_tree(pair/'linked').sequences


def test_a_real_file_is_never_overwritten(pair):
    target = pair/'linked'/'000'/'nm-01'/'000'/'0_heatmap.pkl'
    target.parent.mkdir(parents=True)
    target.write_text('precious')
    assert link_all(pair) == 1 and target.read_text() == 'precious'


def test_nothing_to_link_is_an_error(pair):
    shutil.rmtree(pair/'sil')
    save_pickle(np.zeros((1, 64, 64), np.uint8), pair/'sil'/'x'/'y'/'z'/'z.pkl')
    assert link_all(pair) == 1
    with pytest.raises(SkeletonGaitError, match='aligned-sils.pkl'):
        link_all(pair, dataset_pkl_ext_name='aligned-sils.pkl')


def test_silhouettes_by_the_end_of_their_name(pair):
    for seq, (path,) in read_tree(pair/'sil').sequences.items():
        save_pickle(np.zeros(3), path.with_name('other.pkl'))
        path.rename(path.with_name('x-aligned-sils.pkl'))
    assert link_all(pair, dataset_pkl_ext_name='aligned-sils.pkl') == 0


def test_only_linked_pairs_stay_linked(pair):
    "A silhouette that vanished and one that broke: their links of an earlier run go, and are counted."
    assert link_all(pair) == 0
    first, second, *rest = read_tree(pair/'sil').sequences
    shutil.rmtree(first.path(pair/'sil'))
    next(second.path(pair/'sil').iterdir()).write_bytes(b'')
    assert link_all(pair) == 1
    assert list(read_tree(pair/'linked').sequences) == rest


@pytest.mark.parametrize('shape, ok', [((6, 64, 44), True), ((6, 64, 48), True), ((6, 128, 88), True),
    ((6, 128, 128), True), ((6, 64, 32), False), ((6, 32, 32), False), ((6, 64), False)])
def test_silhouette_sizes(shape, ok):
    assert (mismatch(np.zeros((6, 2, 64, 64), np.uint8), np.zeros(shape, np.uint8)) is None) == ok


def test_every_parameter_is_explained():
    assert all(a.help for a in arg_parser(ln_sil_heatmap)._actions)


@pytest.mark.slow
@pytest.mark.parametrize('launch', LAUNCHES)
def test_every_way_to_start(pair, launch):
    done = start(launch, 'ln_sil_heatmap', '--heatmap_data_path=maps', '--silhouette_data_path=sil',
                 '--output_path=linked', cwd=pair)
    assert done.returncode == 0, done.stderr
    assert len(read_tree(pair/'linked').sequences) == 12 and done.stdout.count('12 sequences linked') == 1


def test_one_clear_line(tmp_path):
    (tmp_path/'empty').mkdir()
    done = start('python -m', 'ln_sil_heatmap', '--heatmap_data_path=nowhere', '--silhouette_data_path=empty',
                 '--output_path=o', cwd=tmp_path)
    assert done.returncode == 2 and 'nowhere: no such folder' in done.stderr and 'Traceback' not in done.stderr
    assert done.stdout == ''


def snapshot(root):
    "Everything below `root`, links and folders too, by what a change would show in."
    def content(p):
        if p.is_symlink(): return os.readlink(p)
        return p.is_file() and p.read_bytes()
    return {p.relative_to(root).as_posix(): (os.lstat(p).st_ino, os.lstat(p).st_mtime_ns, content(p))
            for p in sorted(root.rglob('*'))}


def report(root): return json.loads((root/'linked'/'report.json').read_text())


def one_file(root, i): return list(read_tree(root).sequences.values())[i][0]


def shorten(path, start=0, end=None):
    "Keep some frames of a file."
    save_pickle(load_pickle(path)[start:end], path)


@pytest.mark.parametrize('names, linked',
    [(('m.npy', 's.pkl'), ('0_heatmap.npy', '1_sil.pkl')), (('m.npz', 's.npz'), ('0_heatmap.npz', '1_sil.npz')),
     (('m.pkl', 's.npy'), ('0_heatmap.pkl', '1_sil.npy'))])
def test_npy_and_npz_keep_their_ending(tmp_path, names, linked):
    for side, name, shape in zip(('maps', 'sil'), names, ((4, 2, 64, 64), (4, 64, 44))):
        x, path = np.full(shape, 7, np.uint8), tmp_path/side/'a'/'b'/'c'/name
        path.parent.mkdir(parents=True)
        if path.suffix == '.pkl': save_pickle(x, path)
        elif path.suffix == '.npy': np.save(path, x)
        else: np.savez_compressed(path, x)
    assert link_all(tmp_path, dataset_pkl_ext_name=os.path.splitext(names[1])[1]) == 0
    files = sorted(p for p in (tmp_path/'linked').glob('a/b/c/*'))
    assert tuple(f.name for f in files) == linked
    assert [load_array(f).shape for f in files] == [(4, 2, 64, 64), (4, 64, 44)]


def test_a_new_ending_replaces_the_old_one(pair):
    assert link_all(pair) == 0
    for seq, (f,) in read_tree(pair/'maps').sequences.items():
        np.save(f.with_suffix('.npy'), load_pickle(f))
        f.unlink()
    assert link_all(pair) == 0
    assert {f.name for fs in read_tree(pair/'linked', ('.pkl', '.npy')).sequences.values()
            for f in fs} == {'0_heatmap.npy', '1_sil.pkl'}


@pytest.mark.parametrize('shape', [(6, 17, 3), (6, 17, 2), (6, 18, 3), (6, 25, 3), (6, 53)])
def test_poses_are_known_by_their_shape(tmp_path, shape):
    save_pickle(np.ones(shape, np.float32), tmp_path/'maps'/'a'/'b'/'c'/'x.pkl')
    save_pickle(np.zeros((5, 64, 64), np.uint8), tmp_path/'sil'/'a'/'b'/'c'/'y.pkl')
    assert link_all(tmp_path, trim='end') == 0
    files = read_tree(tmp_path/'linked').sequences['a', 'b', 'c']
    assert [f.name for f in files] == ['0_pose.pkl', '1_sil.pkl'] and load_pickle(files[0]).shape == (5, *shape[1:])


def test_maps_in_place_of_poses(pair, walkers):
    "The same output, first with poses, then with maps: no file of the first remains."
    assert ln_sil_heatmap(str(walkers/'pose'), str(pair/'sil'), str(pair/'linked')) == 0
    assert {f.name for fs in read_tree(pair/'linked').sequences.values() for f in fs} == {'0_pose.pkl', '1_sil.pkl'}
    assert link_all(pair) == 0
    assert {f.name for fs in read_tree(pair/'linked').sequences.values() for f in fs} == {'0_heatmap.pkl', '1_sil.pkl'}


@pytest.mark.parametrize('where, kept', [('end', slice(0, 4)), ('start', slice(2, 6))])
@pytest.mark.parametrize('side, name', [('maps', '1_sil.pkl'), ('sil', '0_heatmap.pkl')])
def test_trim(pair, capsys, where, kept, side, name):
    """The longer file is written with its last or first frames cut off, the other linked, the cut recorded.

    A second run changes nothing, one without --trim takes it back.
    """
    short, long = one_file(pair/side, 0), one_file(pair/('sil' if side == 'maps' else 'maps'), 0)
    shorten(short, 0, 4)
    assert link_all(pair, trim=where, trim_at_most=1) == 1 and 'a difference of 1 at most' in capsys.readouterr().out
    assert link_all(pair, trim=where, trim_at_most=2) == 0
    seq = short.relative_to(pair/side).parts[:3]
    assert report(pair)['trimmed'] == [dict(sequence='/'.join(seq), file=name, source=str(long), frames_before=6,
                                            frames_after=4, cut_at=where)]
    assert f"trimmed: {'/'.join(seq)}: {name}: 6 frames, 4 kept, cut at the {where}" in capsys.readouterr().out
    folder = pair/'linked'/'/'.join(seq)
    np.testing.assert_array_equal(load_pickle(folder/name), load_pickle(long)[kept])
    other = '0_heatmap.pkl' if side == 'maps' else '1_sil.pkl'
    assert {p.name: p.is_symlink() for p in folder.iterdir()} == {name: False, other: True}
    before = snapshot(pair/'linked')
    assert link_all(pair, trim=where) == 0 and snapshot(pair/'linked') == before
    assert link_all(pair) == 1 and not any(folder.iterdir())
    assert not (pair/'linked'/'copies.jsonl').exists() and report(pair)['trimmed'] == []


def test_trimmed_at_the_other_end_and_then_fixed(pair):
    f = one_file(pair/'sil', 0)
    shorten(f, 2)
    whole = one_file(pair/'maps', 0)
    target = f.relative_to(pair/'sil').parent
    for where, kept in (('end', slice(0, 4)), ('start', slice(2, 6))):
        assert link_all(pair, trim=where) == 0
        np.testing.assert_array_equal(load_pickle(pair/'linked'/target/'0_heatmap.pkl'), load_pickle(whole)[kept])
    shorten(whole, 2)
    assert link_all(pair, trim='start') == 0 and (pair/'linked'/target/'0_heatmap.pkl').is_symlink()


def test_a_pair_without_a_common_frame_fails(tmp_path):
    save_pickle(np.zeros((3, 2, 64, 64), np.uint8), tmp_path/'maps'/'a'/'b'/'c'/'x.pkl')
    save_pickle(np.zeros((0, 64, 64), np.uint8), tmp_path/'sil'/'a'/'b'/'c'/'y.pkl')
    assert link_all(tmp_path, trim='end') == 1
    assert 'expected at least one frame' in report(tmp_path)['failed'][0]['reason']


def test_copies(pair):
    assert link_all(pair, copy=True) == 0
    linked = read_tree(pair/'linked').sequences
    for seq, fs in linked.items():
        for f, side in zip(fs, ('maps', 'sil')):
            source = next(seq.path(pair/side).iterdir())
            assert not f.is_symlink() and f.read_bytes() == source.read_bytes()
            assert f.stat().st_mtime_ns == source.stat().st_mtime_ns
    before = snapshot(pair/'linked')
    assert link_all(pair, copy=True) == 0 and snapshot(pair/'linked') == before
    os.utime(one_file(pair/'sil', 1)) # touched, not changed
    assert link_all(pair, copy=True) == 0 and snapshot(pair/'linked') == before
    stale = one_file(pair/'sil', 0)
    save_pickle(load_pickle(stale)[::-1].copy(), stale)
    assert link_all(pair, copy=True) == 0
    changed = {k for k, v in snapshot(pair/'linked').items() if v[2] != before[k][2]}
    assert changed == {'copies.jsonl', (stale.relative_to(pair/'sil').parent/'1_sil.pkl').as_posix()}


def test_links_and_copies_take_turns(pair):
    shorten(one_file(pair/'sil', 0), 1)
    seen = {}
    for copy, trim in ((False, 'no'), (True, 'start'), (False, 'start'), (True, 'no'), (False, 'no'), (True, 'start'),
                       (True, 'no'), (False, 'start')):
        assert link_all(pair, copy=copy, trim=trim) == int(trim == 'no')
        tree = {p.relative_to(pair).as_posix(): (p.is_symlink(), p.read_bytes()) for p in (pair/'linked').rglob('*')
                if p.is_file()}
        assert seen.setdefault((copy, trim), tree) == tree
        n_links = {(False, 'no'): 22, (False, 'start'): 23}.get((copy, trim), 0)
        assert sum(p.is_symlink() for p in (pair/'linked').rglob('*')) == n_links


@pytest.mark.parametrize('copy', [False, True])
def test_a_file_of_somebody_else_survives_everything(pair, copy, capsys):
    "A user's file in a copy's place, an edited copy, one in a sequence that lost its other half: all stay."
    assert link_all(pair, copy=True) == 0
    edited, replaced, single = (read_tree(pair/'linked').sequences[s][1]
                                for s in list(read_tree(pair/'linked').sequences)[:3])
    edited.write_bytes(edited.read_bytes() + b'.')
    replaced.unlink()
    replaced.write_text('precious')
    single.write_text('mine')
    shutil.rmtree(pair/'sil'/single.relative_to(pair/'linked').parent)
    want = [f.read_bytes() for f in (edited, replaced, single)]
    for kw in (dict(copy=copy), dict(copy=not copy), dict(copy=copy, trim='end')):
        capsys.readouterr()
        assert link_all(pair, **kw) == 1
        out = capsys.readouterr().out
        assert [f.read_bytes() for f in (edited, replaced, single)] == want
        assert report(pair)['counts'] == dict(linked=9, trimmed=0, only_maps=1, only_silhouettes=0, failed=2, kept=3,
                                              strays=0)
        for f in (edited, replaced):
            assert f'failed: {f}: is a real file that this script did not write' in out
        assert f'kept: {single}' in out and not (single.with_name('0_heatmap.pkl')).exists()


def test_a_right_file_of_somebody_else_is_left_and_not_taken_over(pair):
    source = one_file(pair/'sil', 0)
    target = pair/'linked'/source.relative_to(pair/'sil').parent/'1_sil.pkl'
    target.parent.mkdir(parents=True)
    shutil.copyfile(source, target)
    before = target.stat()
    assert link_all(pair, copy=True) == 0 and target.stat().st_ino == before.st_ino
    assert target.stat().st_mtime_ns == before.st_mtime_ns
    assert link_all(pair) == 1 and not target.is_symlink()


@pytest.mark.parametrize('kw', [{}, dict(copy=True), dict(trim='start'), dict(copy=True, trim='end'),
                                dict(dataset_pkl_ext_name='090.pkl')])
@pytest.mark.parametrize('earlier', [None, {}, dict(copy=True, trim='start')])
def test_a_dry_run_changes_nothing_and_says_what_will_be(pair, capsys, kw, earlier):
    shorten(one_file(pair/'sil', 0), 1)
    shutil.rmtree(list(read_tree(pair/'maps').sequences)[1].path(pair/'maps'))
    if earlier is not None:
        link_all(pair, **earlier)
        stale = one_file(pair/'sil', 5)
        save_pickle(load_pickle(stale)[::-1].copy(), stale)
        (pair/'linked'/'gone'/'x'/'y').mkdir(parents=True)
        (pair/'linked'/'gone'/'x'/'y'/'1_sil.pkl').symlink_to('/nowhere')
        (pair/'linked'/'copies.jsonl').open('a').write('["half')
    before = snapshot(pair)
    capsys.readouterr()
    code, said = link_all(pair, dry_run=True, **kw), capsys.readouterr().out
    assert snapshot(pair) == before and (pair/'linked').exists() == (earlier is not None)
    assert link_all(pair, **kw) == code
    done = capsys.readouterr().out.splitlines()[-1]
    changes = {'sequences linked': 'sequences would be linked', 'as they were': 'as they are',
               ' failed,': ' would fail,'}
    for was, would in changes.items():
        done = done.replace(was, would)
    assert said.splitlines()[-1] == done + ' (dry run: nothing was changed)'
    assert (pair/'linked'/'report.json').exists() and 'would be linked' in said


def test_the_report_is_a_state(pair):
    seqs = list(read_tree(pair/'maps').sequences)
    names = ['/'.join(s) for s in seqs]
    shutil.rmtree(seqs[0].path(pair/'maps'))
    shutil.rmtree(seqs[1].path(pair/'sil'))
    shorten(next(seqs[2].path(pair/'sil').iterdir()), 1)
    extra = next(seqs[3].path(pair/'sil').iterdir()).with_name('z.pkl')
    extra.write_bytes(b'')
    bad = next(seqs[4].path(pair/'maps').iterdir())
    bad.write_bytes(b'x')
    assert link_all(pair, trim='end') == 1
    r = report(pair)
    counts = dict(linked=8, trimmed=1, only_maps=1, only_silhouettes=1, failed=2, kept=0, strays=0)
    assert r['counts'] == counts == {k: len(r[k]) for k in counts}
    assert (r['linked'], r['only_maps'], r['only_silhouettes']) == (names[2:3] + names[5:], names[1:2], names[:1])
    assert r['trimmed'][0]['sequence'] == names[2]
    assert {f['sequence']: (len(f['files']), f['reason'].startswith(str(bad)), 'several files' in f['reason'])
            for f in r['failed']} == {names[3]: (2, False, True), names[4]: (2, True, False)}
    text, before = (pair/'linked'/'report.json').read_text(), snapshot(pair/'linked')
    assert link_all(pair, trim='end') == 1 and snapshot(pair/'linked') == before
    shutil.rmtree(pair/'linked')
    link_all(pair, trim='end')
    assert (pair/'linked'/'report.json').read_text() == text


def test_what_both_trees_lost_is_no_longer_linked(pair, capsys):
    assert link_all(pair, copy=True) == 0
    shutil.rmtree(pair/'maps'/'000')
    shutil.rmtree(pair/'sil'/'000')
    assert link_all(pair) == 0 and '8 sequences linked' in (out := capsys.readouterr().out)
    assert '4 no longer linked' in out
    assert {s.subject for s in read_tree(pair/'linked').sequences} == {'001', '002'}
    assert not (pair/'linked'/'copies.jsonl').exists()


def test_leftovers_of_a_killed_run_go(pair):
    assert link_all(pair, copy=True) == 0
    want = snapshot(pair/'linked')
    folders = [fs[0].parent for fs in read_tree(pair/'linked').sequences.values()]
    for o in (pair/'linked'/'.0badcafe.host-1.tmp', folders[0]/'.0badcafe.host-1.tmp',
              folders[1]/'.12345678.a.b-77.tmp'):
        o.write_text('half')
    (folders[2]/'.link.host-5.tmp').symlink_to('/nowhere')
    other = folders[0]/'.notes.tmp'
    other.write_text('not ours')
    with open(pair/'linked'/'copies.jsonl', 'a') as f:
        f.write('["000/nm-01/000/1_sil.pkl", 12')
    assert link_all(pair, copy=True) == 0 and other.exists()
    other.unlink()
    assert {k: v[2] for k, v in snapshot(pair/'linked').items()} == {k: v[2] for k, v in want.items()}


def test_a_damaged_list_of_copies_is_refused(pair):
    (pair/'linked').mkdir()
    (pair/'linked'/'copies.jsonl').write_text('no list\n')
    with pytest.raises(SkeletonGaitError, match='copies.jsonl: not a valid list of the files written here'):
        link_all(pair)


def test_an_output_inside_an_input_is_refused(pair, monkeypatch):
    monkeypatch.chdir(pair)
    for out in ('maps', 'sil/linked', './maps/../maps/x'):
        with pytest.raises(SkeletonGaitError, match='lies in the input'):
            ln_sil_heatmap('maps', 'sil', out)


def test_an_output_that_is_a_file_is_refused(pair):
    (pair/'linked').write_text('precious')
    with pytest.raises(SkeletonGaitError, match='is a file; choose a folder'):
        link_all(pair)


def test_an_unknown_trim_is_refused(pair):
    with pytest.raises(SkeletonGaitError, match="--trim 'strat' is not known; did you mean 'start'"):
        link_all(pair, trim='strat')


def test_limits(pair):
    assert link_all(pair, max_frames=5) == 1 and link_all(pair, max_frames=6) == 0
    save_pickle(np.zeros((300, 64, 64), np.uint8), one_file(pair/'sil', 0))
    assert link_all(pair, max_file_mb=1) == 1 and 'raise max_file_mb' in report(pair)['failed'][0]['reason']


def refuse(number):
    def call(*args, **kw): raise OSError(number, os.strerror(number))
    return call


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize('call, kw', [('symlink', {}), ('replace', {}), ('fsync', dict(copy=True)),
                                      ('replace', dict(copy=True)), ('unlink', dict(trim='end'))])
def test_an_output_that_cannot_be_written_ends_the_work(pair, monkeypatch, capsys, number, call, kw):
    "After three pairs, or before the first: one clear line, exit 1, no report; later the same command finishes."
    if call == 'unlink':
        link_all(pair, copy=True)
        shutil.rmtree(pair/'sil'/'002')
        capsys.readouterr() # links and copies to remove in the end
    real, calls = getattr(os, call), iter(range(1000))
    before = snapshot(pair/'linked').get('report.json')
    good = 0 if call == 'unlink' else 6
    def fails(*args, **kwargs):
        if next(calls) < good: return real(*args, **kwargs)
        return refuse(number)()
    monkeypatch.setattr(os, call, fails)
    assert link_all(pair, **kw) == 1
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 1 and out[0].startswith(f'stopped: {pair}/linked')
    assert os.strerror(number) in out[0]
    assert out[0].endswith('fix it and run the same command again')
    assert snapshot(pair/'linked').get('report.json') == before
    monkeypatch.undo()
    assert link_all(pair, **kw) == 0 and not list((pair/'linked').rglob('.*'))
    n = len(report(pair)['linked'])
    assert n == len(read_tree(pair/'linked').sequences) == (8 if call == 'unlink' else 12)


def test_a_report_that_cannot_be_written(pair, monkeypatch, capsys):
    "What there is to say is said before."
    from skeletongait.prepare import link_tree as module
    monkeypatch.setattr(module, 'save_text', refuse(errno.ENOSPC))
    assert link_all(pair) == 1
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2 and '12 sequences linked' in out[0]
    assert f'stopped: {pair}/linked/report.json: cannot be written: No space' in out[1]


def test_half_a_line_on_a_full_disk_is_removed(pair, monkeypatch):
    "Whatever was listed before stays readable."
    assert link_all(pair, copy=True) == 0
    from skeletongait.prepare import link_tree as module
    written = module.Written(pair/'linked')
    before = written.path.read_bytes()
    real = open
    class Full:
        def __init__(self, f):
            self.f = f
        def __enter__(self): return self
        def __exit__(self, *a): self.f.close()
        def __getattr__(self, name): return getattr(self.f, name)
        def write(self, data): return self.f.write(data[:7])
    monkeypatch.setattr(module, 'open', lambda *a, **kw: Full(real(*a, **kw)), raising=False)
    with pytest.raises(module.OutputError, match='copies.jsonl: cannot be written: No space'):
        written.add(pair/'linked'/'a', one_file(pair/'sil', 0))
    assert written.path.read_bytes() == before


def test_every_line_of_a_copy_is_on_the_disk_before_the_copy(pair, monkeypatch):
    synced = set()
    real, replace = os.fsync, os.replace
    def fsync(fd):
        synced.add(os.fstat(fd).st_ino)
        real(fd)
    def check(tmp, path):
        if str(path).endswith('.pkl'):
            assert (pair/'linked'/'copies.jsonl').stat().st_ino in synced
            assert json.dumps(str(path.relative_to(pair/'linked'))) in (pair/'linked'/'copies.jsonl').read_text()
        replace(tmp, path)
    monkeypatch.setattr(os, 'fsync', fsync)
    monkeypatch.setattr(os, 'replace', check)
    assert link_all(pair, copy=True) == 0


def test_a_failed_replace_leaves_nothing(pair, monkeypatch):
    monkeypatch.setattr(os, 'replace', refuse(errno.EINVAL))
    with pytest.raises(OSError):
        link(one_file(pair/'maps', 0), pair/'o'/'l')
    assert not list((pair/'o').iterdir())


def test_dots_behind_a_link_are_not_collapsed(pair, monkeypatch):
    "`l/../maps`, where `l` leads elsewhere: beside the folder that it leads to."
    (pair/'real'/'sub').mkdir(parents=True)
    (pair/'l').symlink_to(pair/'real'/'sub')
    (pair/'maps').rename(pair/'real'/'maps')
    monkeypatch.chdir(pair)
    assert ln_sil_heatmap('l/../maps', 'sil', 'linked') == 0
    linked = read_tree(pair/'linked').sequences
    assert len(linked) == 12
    for seq, fs in linked.items():
        assert fs[0].resolve() == next(seq.path(pair/'real'/'maps').iterdir()) and fs[1].exists()
    before = snapshot(pair/'linked')
    assert ln_sil_heatmap('l/../maps', 'sil', 'linked') == 0 and snapshot(pair/'linked') == before


@pytest.mark.parametrize('kw, hint', [
    ({}, '--trim=end or --trim=start cuts the longer one'),
    (dict(trim_at_most=1), '--trim=end or --trim=start with --trim_at_most=2 cuts the longer one'),
    (dict(trim='end', trim_at_most=1), 'walk, --trim_at_most=2 cuts the longer one')])
def test_a_mismatch_names_the_options_that_fix_it(pair, capsys, kw, hint):
    shorten(one_file(pair/'sil', 0), 2)
    assert link_all(pair, **kw) == 1
    assert hint in capsys.readouterr().out
    assert link_all(pair, trim='end', trim_at_most=2) == 0


def test_strays_are_listed(pair, capsys):
    for i in range(12):
        shutil.copy(one_file(pair/'sil', 0), pair/'sil'/f'stray_{i:02d}.pkl')
    shutil.copy(one_file(pair/'maps', 0), pair/'maps'/'000'/'up.pkl')
    assert link_all(pair) == 0
    warnings = [l for l in capsys.readouterr().out.splitlines() if l.startswith('warning')]
    assert len(warnings) == 11
    assert warnings[0] == f'warning: ignored, not at <subject>/<type>/<view>/: {pair}/maps/000/up.pkl'
    assert warnings[-1] == 'warning: and 3 more'
    assert report(pair)['counts']['strays'] == 13 == len(report(pair)['strays'])


@pytest.mark.parametrize('trim', ['no', 'end'])
def test_poses_and_silhouettes_of_one_tree(pair, walkers, trim):
    "As SUSTech1K keeps them: all modalities in one folder."
    for seq, (f,) in read_tree(walkers/'pose').sequences.items():
        folder = seq.path(pair/'all')
        folder.mkdir(parents=True)
        shutil.copy(f, folder/'03-Camera-Pose.pkl')
        shutil.copy(next(seq.path(pair/'sil').iterdir()), folder/'02-Camera-Sils_aligned.pkl')
        save_pickle(np.zeros(3), folder/'00-LiDAR-PCDs.pkl')
    shutil.copy(one_file(pair/'sil', 0), pair/'all'/'02-Camera-Sils_aligned.pkl')
    both = dict(dataset_pkl_ext_name='Camera-Sils_aligned.pkl', trim=trim)
    args = str(pair/'all'), str(pair/'all'), str(pair/'linked')
    assert ln_sil_heatmap(*args, **both) == 1 and report(pair)['counts']['failed'] == 12
    assert ln_sil_heatmap(*args, heatmap_name_begins='03', **both) == 0
    assert report(pair)['counts'] == dict(linked=12, trimmed=0, only_maps=0, only_silhouettes=0, failed=0, kept=0,
                                          strays=1)
    assert {f.name: f.resolve().name for fs in read_tree(pair/'linked').sequences.values()
            for f in fs} == {'0_pose.pkl': '03-Camera-Pose.pkl', '1_sil.pkl': '02-Camera-Sils_aligned.pkl'}
    with pytest.raises(SkeletonGaitError, match="begins with '07'.*--heatmap_name_begins"):
        ln_sil_heatmap(*args, heatmap_name_begins='07', **both)


def test_names_that_are_not_text(pair):
    "Bytes that are not UTF-8 and a line break in names, in every kind of line, with a stdout that takes only UTF-8."
    for i, name in enumerate((b'000\xff', b'001\n1', b'002\n\xff')):
        for side in ('maps', 'sil'):
            os.rename(pair/side/f'00{i}', os.fsencode(pair/side)+b'/'+name)
    seqs = list(read_tree(pair/'maps').sequences)
    for i in (0, 4):
        shutil.rmtree(seqs[i].path(pair/'sil'))
    for i in (1, 5, 8):
        next(seqs[i].path(pair/'sil').iterdir()).write_bytes(b'')
    shorten(next(seqs[9].path(pair/'sil').iterdir()), 1)
    shutil.copy(one_file(pair/'sil', 3), os.fsencode(pair/'sil')+b'/str\n\xff.pkl')
    done = start('python -m', 'ln_sil_heatmap', '--heatmap_data_path=maps', '--silhouette_data_path=sil',
                 '--output_path=out\nput', '--trim=end', cwd=pair, PYTHONIOENCODING='utf-8:strict')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    lines = done.stdout.splitlines()
    assert [sum(l.startswith(k) for l in lines)
            for k in ('warning: ', 'only maps: ', 'trimmed: ', 'failed: ')] == [1, 2, 1, 3]
    assert len(lines) == 8
    assert 'only maps: 000\\udcff/' in done.stdout and lines[-1].startswith('7 sequences linked')
    assert lines[-1].endswith('-> out\\nput')


@given(st.text(st.characters()))
def test_one_line_is_one_printable_line(text):
    line = one_line(text)
    assert line.isprintable() and line.encode('utf-8').decode() == line and (line == text or not text.isprintable())


def test_no_failure_of_one_pair_stops_the_others(pair, monkeypatch, capsys):
    "Even one that nobody foresaw."
    from skeletongait.prepare import link_tree as module
    real, bad = module.match_pair, one_file(pair/'maps', 3)
    monkeypatch.setattr(module, 'match_pair', lambda files, *a: 1/0 if files[0] == bad else real(files, *a))
    assert link_all(pair) == 1 and 'ZeroDivisionError' in capsys.readouterr().out
    assert len(read_tree(pair/'linked').sequences) == 11


def test_only_the_first_rank_works(pair, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('WORLD_SIZE', '2')
    assert link_all(pair) == 0 and not (pair/'linked').exists()


def test_few_at_a_time_and_in_order():
    started = []
    def note(i):
        started.append(i)
        return i*i
    for i, o in enumerate(in_threads(note, range(200), 4)):
        assert o == i*i and len(started) <= i + 8
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda i: 1/i, [1, 0]))


SIDE = st.sampled_from([None, 'broken', 'two', 1, 2, 3, 4, 8])
RUN = st.tuples(st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=6), st.sampled_from(TRIMS), st.integers(1, 4),
                st.booleans())


def write_side(root, kind, states):
    shutil.rmtree(root, ignore_errors=True)
    save_pickle(0, root/'lone'/kind/'v'/'x.pkl') # neither tree is ever empty
    for i, state in enumerate(states):
        n, path = state if isinstance(state, int) else 3, root/f's {i}'/'t'/'v'/'x.pkl'
        if state is None: continue
        save_pickle(np.broadcast_to(np.arange(n, dtype=np.uint8).reshape(n, *[1]*(3 if kind == 'maps' else 2)),
                                    (n, 2, 8, 8) if kind == 'maps' else (n, 64, 44)).copy(), path)
        if state == 'broken':
            path.write_bytes(path.read_bytes()[:-9])
        if state == 'two':
            shutil.copy(path, path.with_name('y.pkl'))


def expected(states, trim, at_most):
    "What should become of each sequence, and the frames of those that are linked."
    for i, (a, b) in enumerate(states):
        if a is None or b is None:
            yield i, None if a is b else 'only_silhouettes' if a is None else 'only_maps', None
        elif isinstance(a, str) or isinstance(b, str) or abs(a-b) > (0 if trim == 'no' else at_most):
            yield i, 'failed', None
        else:
            yield i, 'linked', [list(range(n)[:min(a, b)] if trim == 'end' else range(n)[n-min(a, b):]) for n in (a, b)]


@settings(max_examples=40)
@given(st.lists(RUN, min_size=1, max_size=3))
def test_every_sequence_ends_in_exactly_one_place(tmp_path_factory, runs):
    """Random trees, one after the other into the same output.

    The report is what it should be, and the tree holds the linked sequences, the right frames, and nothing else.
    """
    root = tmp_path_factory.mktemp('random')
    for states, trim, at_most, copy in runs:
        write_side(root/'maps', 'maps', [a for a, _ in states])
        write_side(root/'sil', 'sil', [b for _, b in states])
        code = link_all(root, trim=trim, trim_at_most=at_most, copy=copy)
        want = list(expected(states, trim, at_most))
        r = report(root)
        for kind in ('linked', 'failed', 'only_maps', 'only_silhouettes'):
            found = {o['sequence'] if kind == 'failed' else o for o in r[kind]}
            assert len(found) == len(r[kind]), kind
            assert found - {'lone/maps/v', 'lone/sil/v'} == {f's {i}/t/v' for i, k, _ in want if k == kind}, kind
        assert code == int(bool(r['failed']) or not r['linked']) and r['kept'] == []
        files = {p.relative_to(root/'linked').as_posix() for p in (root/'linked').rglob('*')
                 if not p.is_dir()} - {'report.json', 'copies.jsonl'}
        assert files == {f's {i}/t/v/{name}' for i, k, _ in want if k == 'linked'
                         for name in ('0_heatmap.pkl', '1_sil.pkl')}
        cut = {(o['sequence'], o['file']) for o in r['trimmed']}
        for i, frames in ((i, f) for i, k, f in want if k == 'linked'):
            for name, ts, n in zip(('0_heatmap.pkl', '1_sil.pkl'), frames, states[i]):
                path = root/'linked'/f's {i}'/'t'/'v'/name
                x = load_pickle(path)
                assert x.reshape(len(x), -1)[:, 0].tolist() == ts
                assert path.is_symlink() == (not copy and n == len(ts))
                assert ((f's {i}/t/v', name) in cut) == (n != len(ts))
        before = snapshot(root/'linked')
        assert link_all(root, trim=trim, trim_at_most=at_most, copy=copy) == code and snapshot(root/'linked') == before
    shutil.rmtree(root)


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    "800 small pairs, every fifth with a frame of silhouettes missing, and what an undisturbed run makes of them."
    root = tmp_path_factory.mktemp('many')
    for i in range(800):
        save_pickle(np.full((3, 2, 8, 8), i % 251, np.uint8), root/'maps'/f'{i:04d}'/'t'/'v'/'m.pkl')
        save_pickle(np.full((3 - (i % 5 == 0), 64, 44), i % 251, np.uint8), root/'sil'/f'{i:04d}'/'t'/'v'/'s.pkl')
    assert ln_sil_heatmap(str(root/'maps'), str(root/'sil'), str(root/'whole'), trim='end', copy=True) == 0
    return root


def begin(many, out, *args):
    return subprocess.Popen([sys.executable, '-m', 'skeletongait.ln_sil_heatmap', '--heatmap_data_path=maps',
                             '--silhouette_data_path=sil', f'--output_path={out}', *args], cwd=many,
                            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def placed(many, out, links):
    "How many silhouettes in the output are links, or real files."
    return sum(p.is_symlink() if links else p.is_file() and not p.is_symlink()
               for p in (many/out/f'{i:04d}'/'t'/'v'/'1_sil.pkl' for i in range(800)))


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(4))
def test_killed_in_the_middle_and_finished(many, seed):
    """SIGKILL at a seeded moment while copying and cutting, while linking, while copying again, then a whole run.

    The tree is that of an undisturbed run, and no file lost its owner.
    """
    rng, out = np.random.default_rng(seed), f'killed_{seed}'
    for args in (('--copy', '--trim=end'), ('--trim=start',), ('--copy', '--trim=end')):
        there = placed(many, out, links='--copy' not in args)
        p = begin(many, out, *args)
        enough = there + rng.uniform(.05, .7)*(800 - there)
        wait_for(lambda: placed(many, out, links='--copy' not in args) >= enough, p)
        p.kill()
        p.communicate()
        assert p.returncode == -signal.SIGKILL and not (many/out/'report.json').exists()
    assert ln_sil_heatmap(str(many/'maps'), str(many/'sil'), str(many/out), trim='end', copy=True) == 0
    def relative(root): return {k: v.replace(str(root).encode(), b'') for k, v in files(root).items()}
    assert relative(many/out) == relative(many/'whole')
    assert ln_sil_heatmap(str(many/'maps'), str(many/'sil'), str(many/out)) == 1
    assert all(p.is_symlink() for p in (many/out).rglob('*.pkl'))
    assert not (many/out/'copies.jsonl').exists()


@pytest.mark.slow
@pytest.mark.parametrize('sig', [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_one_line(many, sig):
    out = f'stopped_{sig.name}'
    p = begin(many, out, '--copy', '--trim=end')
    wait_for(lambda: placed(many, out, links=False) >= 50, p)
    p.send_signal(sig)
    said, err = p.communicate(timeout=60)
    assert p.returncode == 130
    last = f'ln_sil_heatmap: stopped by {sig.name}; what is linked stays; run the same command again to link the rest'
    assert err.splitlines()[-1].endswith(last)
    assert 'Traceback' not in err and said == ''
    assert not [f for f in (many/out).rglob('.*')] and not (many/out/'report.json').exists()
    assert ln_sil_heatmap(str(many/'maps'), str(many/'sil'), str(many/out), trim='end', copy=True) == 0


@pytest.mark.slow
def test_dry_run_and_trim_from_the_command_line(pair):
    shorten(one_file(pair/'sil', 0), 1)
    args = ('--heatmap_data_path=maps', '--silhouette_data_path=sil', '--output_path=linked', '--trim=start',
            '--trim_at_most=1', '--copy', '--max_file_mb=10', '--max_frames=6')
    done = start('torchrun -m', 'ln_sil_heatmap', *args, '--dry_run', cwd=pair)
    would = '12 sequences would be linked (12 new or changed, 0 as they are), 1 of them trimmed'
    assert done.returncode == 0 and done.stdout.count(would) == 1, done.stderr
    assert not (pair/'linked').exists()
    done = start('torchrun -m', 'ln_sil_heatmap', *args, cwd=pair)
    linked = '12 sequences linked (12 new or changed, 0 as they were), 1 of them trimmed'
    assert done.returncode == 0 and linked in done.stdout, done.stderr


def test_another_ending_names_the_option(tmp_path):
    x = np.full((4, 64, 44), 7, np.uint8)
    path = tmp_path/'sil'/'a'/'b'/'c'/'s.npy'
    path.parent.mkdir(parents=True)
    np.save(path, x)
    with pytest.raises(SkeletonGaitError, match=r's\.npy: is --dataset_pkl_ext_name=\.npy meant'):
        list_silhouettes(str(tmp_path/'sil'), '.pkl')
    assert len(list_silhouettes(str(tmp_path/'sil'), '.npy').sequences) == 1
