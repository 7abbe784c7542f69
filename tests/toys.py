"Six walkers and a network of seconds, for the tests of training."
from skeletongait.config import load_config, to_yaml
from skeletongait.core import read_tree, save_pickle, save_text
from skeletongait.heatmap import pose_to_heatmap
from skeletongait.pose import load_pickle
from skeletongait.walkers import write_walkers


def make_walkers(root):
    "Six walkers as a linked tree, and a partition."
    write_walkers(root, n_subjects=6, n_train=4, types=('nm-01', 'bg-01'), views=('000', '090'), n_frames=10)
    for seq, (f,) in read_tree(root/'pose').sequences.items():
        save_pickle(pose_to_heatmap(load_pickle(f)), seq.path(root/'linked')/'0_heatmap.pkl')
        save_pickle(load_pickle(seq.path(root/'silhouette')/f.name), seq.path(root/'linked')/'1_sil.pkl')
    return root


def tiny(root, name='demo_skeletongait', **trainer):
    "Settings of seconds: a tiny network, plain SGD."
    cfg, _ = load_config(name)
    cfg.data_cfg.dataset_root, cfg.data_cfg.dataset_partition, cfg.data_cfg.num_workers = str(root/'linked'), str(root/'partition.json'), 0
    if cfg.model_cfg.model == 'SkeletonGait': cfg.model_cfg.Backbone.channels = [4, 4, 8, 8]
    cfg.model_cfg.SeparateBNNecks.class_num = 4
    cfg.optimizer_cfg.solver, cfg.optimizer_cfg.arguments = 'SGD', dict(lr=.02, momentum=.9)
    cfg.scheduler_cfg.scheduler, cfg.scheduler_cfg.arguments = 'MultiStepLR', dict(milestones=[4])
    cfg.evaluator_cfg.restore_hint = None
    cfg.evaluator_cfg.protocol = dict(gallery=dict(types=['nm-01']), probe=dict(types=['bg-01']), exclude=['view'])
    t = cfg.trainer_cfg
    t.total_iter, t.log_iter, t.save_iter, t.sampler.batch_size, t.sampler.frames_num_fixed = 6, 2, 3, [4, 2], 4
    for k, v in trainer.items(): setattr(t, k, v)
    return cfg


def write_config(cfg, path):
    "Save settings where a script reads them."
    save_text(to_yaml(cfg), path)
    return path
