"""FastMLS on a MobileFaceNet and a few thousand real faces: minutes on a laptop's CPU.

    python network.py --config_file config/config_mbf_fast_mls_lfw.py \
        --set train_images=PATH backbone_weights=PATH

Degradations and the length of the embedding help here as they do for config_mbf_idq_lfw.py.
"""

from utils.config import Augment, Method, Schedule, TrainConfig

config = TrainConfig(
    name="mbf_fast_mls_lfw",
    backbone=Method("mobilefacenet"),
    backbone_weights="weights/mbf_y1.pth",
    head=Method("fc2", output="variance", hidden=64, log_norm=0.6, dropout=0.5),
    loss=Method("fast_mls"),
    train_images="datasets/lfw_train",
    classes_per_batch=20,
    images_per_class=8,
    schedule=Schedule(epochs=4, steps_per_epoch=300, lr=3e-3, drop_at=(2, 3), weight_decay=5e-3),
    augment=Augment(blur=0.0, occlusion=0.0, rare=0.0, degrade=0.3),
    log_every=50,
)
