"""IDQ on MS1M faces with a Glint360K iResNet50.

    python network.py --config_file config/config_ir50_idq_loss_glint360k.py \
        --set train_images=PATH backbone_weights=PATH verification.dataset_path=PATH

The quality it learns reads as the probability that the face matches another of the same person
at cosine 0.45. The loss starts near 0.7 and falls to about 0.5 within the first epoch.
"""

from utils.config import Method, Schedule, TrainConfig, Verification

config = TrainConfig(
    name="glint_ir50_idq",
    backbone=Method("iresnet", depth=50),
    backbone_weights="weights/glint360k_cosface_r50_fp16_0.1/backbone.pth",
    head=Method("fc2", output="probability", hidden=256),
    loss=Method("idq", scale=16.0, margin=0.45),
    train_images="datasets/ms1m-retinaface-t1",
    classes_per_batch=10,
    images_per_class=8,
    schedule=Schedule(epochs=12, steps_per_epoch=1000, lr=1e-2, drop_at=(6, 9)),
    verification=Verification(
        dataset_path="datasets/ms1m-retinaface-t1", targets=("lfw", "cfp_fp", "agedb_30")
    ),
)
