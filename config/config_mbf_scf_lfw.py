"""SCF's concentrations on a MobileFaceNet and a few thousand real faces.

    python network.py --config_file config/config_mbf_scf_lfw.py \
        --set train_images=PATH backbone_weights=PATH

The head and the images are those of config_mbf_idq_grid_lfw.py. Centres are means of
the training images.
"""

from utils.config import Augment, Method, Schedule, TrainConfig

config = TrainConfig(
    name="mbf_scf_lfw",
    backbone=Method("mobilefacenet"),
    backbone_weights="weights/mbf_y1.pth",
    head=Method("gap_linear", output="variance", log_norm=1.0, grid=3),
    loss=Method("scf"),
    train_images="datasets/lfw_train",
    classes_per_batch=20,
    images_per_class=8,
    schedule=Schedule(epochs=4, steps_per_epoch=300, lr=0.1, drop_at=(2, 3), weight_decay=5e-4),
    augment=Augment(blur=0.0, occlusion=0.0, rare=0.0, degrade=0.3),
    log_every=50,
)
