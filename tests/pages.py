"What the browser tests open, and how they look at pictures."
import cv2
import numpy as np


def decode(png):
    "PNG bytes to RGB."
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


WALK = dict(seed=0, subject=1, type='bg-01', view='090', n_frames=40)
MAPS = f'''from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.walkers.recording import make_sequence
rec = make_sequence(**{WALK})
maps = pose_to_heatmap(rec.pose)'''


PLAYER = f'''{MAPS}
from skeletongait.viewers.player import SequencePlayer
viewer = SequencePlayer(maps, ('limb map', 'joint map'))
viewer'''


STUDIO = f'''{MAPS}
pose = rec.pose.copy()
pose[10:20, 15] = 0
from skeletongait.viewers.studio import HeatmapStudio
viewer = HeatmapStudio(pose, rec.silhouette)
viewer'''


OVERLAY = f'''{MAPS}
from skeletongait.viewers.overlay import OverlayViewer
viewer = OverlayViewer(maps, rec.silhouette[..., 10:54])
viewer'''
