"A stand-in for the networks that find people, and a video to go with it."
import cv2
import numpy as np

from skeletongait.estimation.blazepose import Body, Square

FIGURE = np.random.default_rng(0).uniform(-1, 1, (33, 2)) * [15, 45]
MASK = np.pad(np.ones((200, 60), np.float32), ((28, 28), (98, 98)))


class Puppet:
    "An estimator that knows where everybody is, and sees whoever stands nearest to the middle of a square."

    def __init__(self):
        self.places = ()

    def people(self, picture, square):
        def near(place):
            return max(abs(place[0] - square.x), abs(place[1] - square.y)) < square.size / 2

        return [Square(x, y, 130) for x, y in self.places if near((x, y))]

    def body(self, picture, square):
        x, y = min(self.places, key=lambda o: abs(o[0] - square.x) + abs(o[1] - square.y), default=(1e9, 0))
        joints = np.column_stack([FIGURE + [x, y], np.ones(33)])
        return Body(joints, float(abs(x - square.x) < 65), MASK, square, Square(x, y, 130))


def write_video(path, n_frames=40, size=(320, 240)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 25, size)
    for t in range(n_frames):
        writer.write(np.full((size[1], size[0], 3), t, np.uint8))
    writer.release()
    return path
