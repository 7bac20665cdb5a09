"""IDQ with the lightest head, which also reads how far the two sides of a face differ.

    python network.py --config_file config/config_mbf_idq_asymmetry_lfw.py \
        --set train_images=PATH backbone_weights=PATH

15 % of the images are strongly degraded; half of them would be too many. The margin lies between
the cosines at which this backbone lets one impostor in 1000 and one in 10 000 pass.
"""

from utils.config import Augment, Method, Schedule, TrainConfig

config = TrainConfig(
    name="mbf_idq_asymmetry_lfw",
    backbone=Method("mobilefacenet"),
    backbone_weights="weights/mbf_y1.pth",
    head=Method("gap_linear", output="probability", log_norm=1.0, asymmetry=True),
    loss=Method("idq", scale=11.0, margin=0.4),
    train_images="datasets/lfw_train",
    classes_per_batch=20,
    images_per_class=8,
    schedule=Schedule(epochs=4, steps_per_epoch=150, lr=0.3, drop_at=(2, 3), weight_decay=5e-4),
    augment=Augment(flip=0.0, blur=0.0, occlusion=0.0, rare=0.0, degrade=0.15),
    log_every=50,
)
