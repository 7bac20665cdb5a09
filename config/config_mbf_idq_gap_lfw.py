"""IDQ with the lightest head: a linear layer on channel averages, and the embedding's length.

    python network.py --config_file config/config_mbf_idq_gap_lfw.py \
        --set train_images=PATH backbone_weights=PATH

Faces stay as they are: so few weights need no degraded images to hold them back.
"""

from utils.config import Augment, Method, Schedule, TrainConfig

config = TrainConfig(
    name="mbf_idq_gap_lfw",
    backbone=Method("mobilefacenet"),
    backbone_weights="weights/mbf_y1.pth",
    head=Method("gap_linear", output="probability", log_norm=1.0),
    loss=Method("idq", scale=16.0, margin=0.35),
    train_images="datasets/lfw_train",
    classes_per_batch=20,
    images_per_class=8,
    schedule=Schedule(epochs=4, steps_per_epoch=150, lr=1.0, drop_at=(2, 3), weight_decay=5e-4),
    augment=Augment(flip=0.0, blur=0.0, occlusion=0.0, rare=0.0),
    log_every=50,
)
