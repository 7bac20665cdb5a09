"""IDQ on a MobileFaceNet and a few thousand real faces: minutes on a laptop's CPU.

    python network.py --config_file config/config_mbf_idq_lfw.py \
        --set train_images=PATH backbone_weights=PATH

So few faces need help: 30 % of the images are strongly degraded, the head is narrow and decays, and
it may use the length of the embedding. The margin is the cosine at which this backbone lets one
impostor in a thousand pass.
"""

from utils.config import Augment, Method, Schedule, TrainConfig

config = TrainConfig(
    name="mbf_idq_lfw",
    backbone=Method("mobilefacenet"),
    backbone_weights="weights/mbf_y1.pth",
    head=Method("fc2", output="probability", hidden=64, log_norm=1.0, dropout=0.5),
    loss=Method("idq", scale=16.0, margin=0.35),
    train_images="datasets/lfw_train",
    classes_per_batch=20,
    images_per_class=8,
    schedule=Schedule(epochs=4, steps_per_epoch=300, lr=1e-2, drop_at=(2, 3), weight_decay=5e-3),
    augment=Augment(blur=0.0, occlusion=0.0, rare=0.0, degrade=0.3),
    log_every=50,
)
