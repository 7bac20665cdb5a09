"""IDQ with a light head that knows where in the face it looks.

    python network.py --config_file config/config_mbf_idq_grid_lfw.py \
        --set train_images=PATH backbone_weights=PATH

A linear layer on 3 x 3 averages of each channel, 4600 weights. 30 % of the images are strongly
degraded. The margin is the cosine at which this backbone lets one impostor in a thousand pass.
"""

from utils.config import Augment, Method, Schedule, TrainConfig

config = TrainConfig(
    name="mbf_idq_grid_lfw",
    backbone=Method("mobilefacenet"),
    backbone_weights="weights/mbf_y1.pth",
    head=Method("gap_linear", output="probability", log_norm=1.0, grid=3),
    loss=Method("idq", scale=16.0, margin=0.35),
    train_images="datasets/lfw_train",
    classes_per_batch=20,
    images_per_class=8,
    schedule=Schedule(epochs=4, steps_per_epoch=300, lr=0.3, drop_at=(2, 3), weight_decay=5e-4),
    augment=Augment(blur=0.0, occlusion=0.0, rare=0.0, degrade=0.3),
    log_every=50,
)
