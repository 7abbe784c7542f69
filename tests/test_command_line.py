"""The command lines are a promise: names, types, defaults and help texts, written out.

A change of one needs a change of the text below, and an entry in the change log."""
import configparser
import importlib

import pytest
from scripts import BIN, ROOT, start

from skeletongait.cli import arg_parser

# One block for each script: its name and what it does; then its flags: type, default (or required), help
EXPECTED = """
check: Look for what is wrong with the values in a tree; changes nothing.
tree | word | required | Tree of poses, maps or silhouettes, or a linked tree: <subject>/<type>/<view>/*.pkl, .npy or .npz
--html | str | None | Write the findings here as one page with pictures
--json | str | None | Write the findings here as JSON, with every sequence
--partition | str | None | JSON file of the partition, or CASIA-B, CASIA-E, CCPG, OUMVLP, GREW
--protocol | str | None | Name of the protocol of the test: Gait3D, CASIA-B, CCPG, ...
--heatmap_cfg_path | str | None | YAML file of heatmap settings: what these make harmless is no error; without it the published ones
--max_file_mb | int | 1024 | Files over this many MiB count as unreadable
--max_frames | int | 100000 | Files with more frames count as unreadable

pretreatment_heatmap: Draw the skeleton maps of every pose sequence in a tree; a second run draws only what is missing or stale.
--pose_data_path | str | required | Tree of poses, <subject>/<type>/<view>/*.pkl (or .npy, .npz)
--save_root | str | required | Where the maps go, below <dataset_name>_sigma_<sigma>_<ext_name>/
--dataset_name | str | required | Gait3D, GREW, OUMVLP, SUSTech1K, CCPG, CASIA-B, CASIA-E, or a name of your own
--ext_name | str | '' | Added to the output folder's name
--heatmap_cfg_path | str | None | YAML file of heatmap settings; without it the published ones
--overwrite | switch |  | Remove the existing maps, and draw all of them again
--patience | float | 120 | Seconds without a sign of life after which a rank counts as lost
--max_file_mb | int | 1024 | Pose files over this many MiB are refused
--max_frames | int | 100000 | Pose files with more frames are refused

ln_sil_heatmap: Link the skeleton maps and silhouettes of every sequence that has both.
--heatmap_data_path | str | required | Tree of skeleton maps, <subject>/<type>/<view>/*.pkl, .npy or .npz; or of poses, for training that renders them while loading (data_cfg.render)
--silhouette_data_path | str | required | Tree of silhouettes of the same layout; may be the same tree
--output_path | str | required | Where the linked tree goes
--dataset_pkl_ext_name | str | '.pkl' | How a silhouette's file name ends: CCPG aligned-sils.pkl, SUSTech1K Camera-Sils_aligned.pkl
--heatmap_name_begins | str | '' | How the name of a file of maps or poses begins: 03 for the poses of SUSTech1K
--trim | str | 'no' | Where to cut the longer file of a pair: end, start, or no: leave the pair out
--trim_at_most | int | 5 | With --trim: leave a pair out if it differs by more frames
--copy | switch |  | Copy the files instead of linking them
--dry_run | switch |  | Say what would be done and change nothing
--max_file_mb | int | 1024 | Files over this many MiB are refused
--max_frames | int | 100000 | Files with more frames are refused

video: Find the people in videos; write their poses and silhouettes.
source | word | required | A video, or a folder with videos
--save_root | str | required | Where the trees pose and silhouette are written
--layout | str | '{subject}/{type}/{view}.*' | Of a folder: where subject, type and view stand in the paths, or a CSV with the columns path, subject, type, view
--shortest | int | 15 | People who are whole in fewer frames are left out
--networks | str | '' | Folder with the network files, or the wheel that holds them; default: fetched once and cached

import_poses: Import poses of any common estimator into a tree of COCO-17 poses; a second run imports only what is new.
source | word | required | Folder of pose files in any format, or one file
--save_root | str | required | Where the poses go, as <subject>/<type>/<view>/pose.pkl
--format | str | '' | How the numbers are meant, such as halpe26, h36m17, movenet, or an estimator's name; empty: what the files say
--layout | str | '{subject}/{type}/{view}' | Where the names stand in a path, {type=nm} for one that no path has; or a CSV: path, subject, type, view
--image_size | str | '' | Size of the images, WIDTHxHEIGHT, where coordinates are fractions of it
--fps | float | 25 | Frames a second of the videos; gaps of up to .4 s are filled
--person | str | 'longest' | Which people: longest (the longest track of a video), or all (each as a subject of its own)
--first_frame | int | 0 | Number that the files give to the first frame of a video; numbers then count from 0
--max_file_mb | int | 1024 | Files over this many MiB are refused
--max_frames | int | 100000 | Videos with more frames are refused

import_silhouettes: Import masks as silhouettes of 64 x 64, cut as the published preprocessing does.
source | word | required | Folder of masks: PNG pictures in a folder for each walk, or videos
--save_root | str | required | Where the silhouettes go, as <subject>/<type>/<view>/<view>.pkl
--layout | str | '{subject}/{type}/{view}' | Pattern of the paths, {type=nm} for a name that no path has; or a CSV with the columns path, subject, type, view
--frames | str | None | Tree of poses with a frames.json; keep only the frames that it has
--first_frame | int | 0 | Number that names give to the first frame of a video; numbers then count from 0
--max_frames | int | 100000 | Videos with more frames are refused

partition: Decide which subjects train and which test, check it, and write the partition.
tree | word | required | Tree of the data, <subject>/<type>/<view>/*.pkl, .npy or .npz
--test | float | None | Fraction of the subjects to test, between 0 and 1, drawn by the seed
--test_list | str | None | File of the subjects to test, one on a line
--test_pattern | list of str | [] | Subjects to test, as in a shell: P* (may be given several times)
--folds | int | None | Number of partitions, in which every subject tests once
--seed | int | 0 | Decides which subjects are drawn
--save | str | None | JSON file to write; without it, only the table is printed

pack: Pack the files of a tree into a few large ones; the tree stays as it is.
tree | word | required | Tree of maps, poses, silhouettes, or a linked tree: <subject>/<type>/<view>/*.pkl, .npy or .npz
out | word | required | Folder of the packed tree
--shard_mb | int | 1024 | Size of a shard, in MiB
--max_file_mb | int | 1024 | Files over this many MiB are left out
--max_frames | int | 100000 | Files with more frames are left out

main: Train a network, or test a checkpoint.
--cfgs | str | required | Path of a configuration file, or the name of a packaged one, like skeletongait_Gait3D
--phase | str | required | train or test
--log_to_file | switch |  | Also write the log to the run's folder
--iter | int | None | Start from (train) or test the checkpoint of this iteration; sets both restore_hints
--output_root | str | None | Where runs keep their checkpoints, logs and results; overrides the configuration
--set | list of str | [] | One more setting, like trainer_cfg.sampler.batch_size=[8,4]; overrides the configuration (may be given several times)

demo: The whole method on simulated walkers: pictures and a table under output/demo.

embed: Embed the sequences of a tree into one file.
tree | word | required | Tree <subject>/<type>/<view>/ of maps, or of poses where the run renders (data_cfg.render)
--checkpoint | str | required | A run's folder, with config.yaml and checkpoints; or a checkpoint
--save | str | required | Where the embeddings go, with their names; ends in .npz
--iter | int | None | Which checkpoint of the run's folder; without it the newest
--set | list of str | [] | A setting that replaces the run's, as data_cfg.render={} to draw the maps of poses (may be given several times)

identify: Rank the people of a gallery for each probe, and say who it is, or that it is nobody of these.
--checkpoint | str | required | A run's folder, with config.yaml and checkpoints; or a checkpoint
--gallery | str | required | Who is known: a file of skeletongait.embed, or a tree <subject>/<type>/<view>/
--probe | str | required | Who is asked about: a file of maps or poses, the folder of a sequence, a tree, or a video
--far | float | None | Rate of false accepts per comparison, as 0.01, for a verdict; without it only a ranking
--top | int | 5 | How many people to list for each probe
--save | str | None | The answers go to <save>.csv and <save>.json, both new; without it: output/identified, -2 ...
--iter | int | None | Which checkpoint of the run's folder; without it the newest
--set | list of str | [] | A setting that replaces the run's, as data_cfg.render={} to draw the maps of poses (may be given several times)
"""

def script(name): return getattr(importlib.import_module(f'skeletongait.{name}'), name)

def kind_of(action):
    "`switch`, `word` for one without a name, the name of a type, or `list of` one."
    kinds = {'_StoreTrueAction': 'switch', '_AppendAction': 'list of '}
    if not action.option_strings: return 'word'
    return kinds.get(type(action).__name__, '') + (action.type.__name__ if action.type else '')

def value_of(action):
    "`required`, or the default; a switch has none."
    if action.required: return 'required'
    return '' if kind_of(action) == 'switch' else repr(action.default)

def command_line(func):
    "The command line of a script, as in `EXPECTED`."
    parser = arg_parser(func)
    lines = [f'{func.__name__}: {parser.description}']
    for a in parser._actions[1:]:
        kind, value = kind_of(a), value_of(a)
        help, _, default = a.help.partition(' (default: ')
        assert default in ('', f'{a.default!r})')
        assert len(a.option_strings) <= 1 and (a.default is False or kind != 'switch')
        name = a.option_strings[0] if a.option_strings else a.dest # a bare word
        lines.append(f"{name} | {kind} | {value} | {help}")
    return '\n'.join(lines)

BLOCKS = {block.split(':')[0]: block for block in EXPECTED.strip().split('\n\n')}

@pytest.mark.parametrize('name', BLOCKS)
def test_flags(name): assert command_line(script(name)).splitlines() == BLOCKS[name].splitlines()

def test_consoles():
    "Each script is a console command of the package, `skeletongait_<name>`; and there are no others."
    settings = configparser.ConfigParser()
    settings.read(ROOT/'settings.ini')
    found = dict(line.strip().split('=') for line in settings['DEFAULT']['console_scripts'].splitlines())
    assert found == {f'skeletongait_{name}': f'skeletongait.{name}:cli' for name in BLOCKS}
    for name in BLOCKS:
        assert callable(importlib.import_module(f'skeletongait.{name}').cli) and (BIN/f'skeletongait_{name}').is_file()

@pytest.mark.parametrize('name', ['pretreatment_heatmap', 'ln_sil_heatmap', 'main', 'identify'])
def test_what_is_missing_or_unknown_is_refused(name, capsys):
    parser = arg_parser(script(name))
    needed = [a.option_strings[0] for a in parser._actions if a.required]
    *complete, last = [f'{o}=x' for o in needed]
    shortened = f'{needed[-1][:-1]}=x'
    for argv, words in (([], 'required: ' + ', '.join(needed)),
                        ([*complete, last, '--no_such_flag'], '--no_such_flag'),
                        ([*complete, shortened], needed[-1])):
        with pytest.raises(SystemExit) as e:
            parser.parse_args(argv)
        assert e.value.code == 2 and words in capsys.readouterr().err

def test_values():
    args = arg_parser(script('main')).parse_args([
        '--cfgs', 'a', '--phase=train', '--set', 'trainer_cfg.seed=1', '--iter=3', '--set=loss_cfg[0].margin=0.3',
        '--log_to_file'])
    changes = ['trainer_cfg.seed=1', 'loss_cfg[0].margin=0.3']
    assert vars(args) == dict(cfgs='a', phase='train', log_to_file=True, iter=3, output_root=None, set=changes)
    assert vars(arg_parser(script('main')).parse_args(['--cfgs=a', '--phase=b']))['set'] == []

def test_set_reaches_the_settings(tmp_path):
    "As a user types it: one line says which change is wrong; the files of the package are taken by name."
    train = ['--cfgs=skeletongait_CCPG', '--phase=train']
    wrong = 'trainer_cfg.sampler.frames_num_fixd=3'
    done = start('console command', 'main', *train, '--set', 'trainer_cfg.seed=1', '--set', wrong, cwd=tmp_path)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    line, = done.stderr.strip().splitlines()
    assert line == (f'main: skeletongait_CCPG: --set {wrong}: trainer_cfg.sampler.frames_num_fixd: unknown key; '
                    'did you mean frames_num_fixed?')
    done = start('console command', 'main', *train, '--set=data_cfg.dataset_root=nowhere', cwd=tmp_path)
    assert done.returncode == 2 and 'nowhere: no such folder' in done.stderr and 'your_path' not in done.stderr
