"""A student of 0.44 M parameters on the image, beside the head that teaches it, for few faces.

    python network.py --config_file config/config_mbf_student_lfw.py \
        --set train_images=PATH backbone_weights=PATH branches.student.head_weights=PATH
    python evaluation/compare.py --methods runs/mbf_student_lfw --target faces:FOLDER --out compared

The teacher is the head of config_mbf_idq_asymmetry_lfw.py and learns beside its student. With so
few faces the student starts from the layers that it shares with the backbone: without
`head_weights` it needs many times as many.
"""

from utils.config import Augment, Branch, Method, Schedule, TrainConfig

EPOCHS, STEPS, DROP_AT = 8, 150, (5, 7)

config = TrainConfig(
    name="mbf_student_lfw",
    backbone=Method("mobilefacenet"),
    backbone_weights="weights/mbf_y1.pth",
    branches=(
        Branch(
            "teacher",
            head=Method("gap_linear", output="probability", log_norm=1.0, asymmetry=True),
            loss=Method("idq", scale=11.0, margin=0.4),
            schedule=Schedule(epochs=EPOCHS, steps_per_epoch=STEPS, lr=0.3, drop_at=DROP_AT),
        ),
        Branch(
            "student",
            head=Method("student", output="probability", size=80, fixed=4, hint=1.0),
            loss=Method("distill", weight=10.0, scale=11.0, margin=0.4),
            head_weights="weights/mbf_y1.pth",
            teacher="teacher",
        ),
    ),
    train_images="datasets/lfw_train",
    classes_per_batch=8,
    images_per_class=8,
    schedule=Schedule(
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        lr=2e-3,
        drop_at=DROP_AT,
        drop_factor=0.2,
        weight_decay=2e-2,
        optimizer="adamw",
    ),
    augment=Augment(blur=0.0, occlusion=0.0, rare=0.2, degrade=0.3),
    log_every=30,
)
