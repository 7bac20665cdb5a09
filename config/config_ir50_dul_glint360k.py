"""DUL on MS1M faces with a Glint360K iResNet50.

    python network.py --config_file config/config_ir50_dul_glint360k.py \
        --set train_images=PATH backbone_weights=PATH verification.dataset_path=PATH

Centres are means of the training images, embedded once before the first step; `centres` may name a
classifier's weights instead. The learning rate is that of FastMLS and was not tuned on such data.
"""

from utils.config import Method, Schedule, TrainConfig, Verification

config = TrainConfig(
    name="glint_ir50_dul",
    backbone=Method("iresnet", depth=50),
    backbone_weights="weights/glint360k_cosface_r50_fp16_0.1/backbone.pth",
    head=Method("fc2", output="variance", hidden=512),
    loss=Method("dul"),
    train_images="datasets/ms1m-retinaface-t1",
    classes_per_batch=10,
    images_per_class=8,
    schedule=Schedule(epochs=12, steps_per_epoch=1000, lr=3e-3, drop_at=(6, 9)),
    verification=Verification(
        dataset_path="datasets/ms1m-retinaface-t1", targets=("lfw", "cfp_fp", "agedb_30")
    ),
)
