"""SDD-FIQA's distance of similarities as the target, on a few thousand faces.

    python network.py --config_file config/config_mbf_sdd_fiqa_lfw.py \
        --set train_images=PATH backbone_weights=PATH

The head and the images are those of config_mbf_idq_grid_lfw.py.
"""

from utils.config import Augment, Method, Schedule, TrainConfig

config = TrainConfig(
    name="mbf_sdd_fiqa_lfw",
    backbone=Method("mobilefacenet"),
    backbone_weights="weights/mbf_y1.pth",
    head=Method("gap_linear", output="probability", log_norm=1.0, grid=3),
    loss=Method("sdd_fiqa"),
    train_images="datasets/lfw_train",
    classes_per_batch=20,
    images_per_class=8,
    schedule=Schedule(epochs=4, steps_per_epoch=300, lr=1.0, drop_at=(2, 3), weight_decay=5e-4),
    augment=Augment(blur=0.0, occlusion=0.0, rare=0.0, degrade=0.3),
    log_every=50,
)
