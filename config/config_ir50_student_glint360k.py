"""A student on the image, beside the IDQ head that teaches it, with a Glint360K iResNet50.

    python network.py --config_file config/config_ir50_student_glint360k.py \
        --set train_images=PATH backbone_weights=PATH verification.dataset_path=PATH

The teacher is the head of config_ir50_idq_loss_glint360k.py. With millions of faces the student
learns all its layers, from random weights. Its schedule has not been tried on this data.
"""

from utils.config import Branch, Method, Schedule, TrainConfig, Verification

config = TrainConfig(
    name="glint_ir50_student",
    backbone=Method("iresnet", depth=50),
    backbone_weights="weights/glint360k_cosface_r50_fp16_0.1/backbone.pth",
    branches=(
        Branch(
            "teacher",
            head=Method("fc2", output="probability", hidden=256),
            loss=Method("idq", scale=16.0, margin=0.45),
            schedule=Schedule(epochs=12, steps_per_epoch=1000, lr=1e-2, drop_at=(6, 9)),
        ),
        Branch(
            "student",
            head=Method("student", output="probability", size=80, hint=1.0),
            loss=Method("distill", weight=10.0, scale=16.0, margin=0.45),
            teacher="teacher",
        ),
    ),
    train_images="datasets/ms1m-retinaface-t1",
    classes_per_batch=10,
    images_per_class=8,
    schedule=Schedule(
        epochs=12,
        steps_per_epoch=1000,
        lr=2e-3,
        drop_at=(6, 9),
        weight_decay=2e-2,
        optimizer="adamw",
    ),
    verification=Verification(
        dataset_path="datasets/ms1m-retinaface-t1", targets=("lfw", "cfp_fp", "agedb_30")
    ),
)
