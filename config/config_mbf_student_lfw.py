"""A student of 0.44 M parameters on the image, taught by a finished head, for few faces.

    python network.py --config_file config/config_mbf_idq_lfw.py \
        --model_dir runs/teacher --set train_images=PATH backbone_weights=PATH
    python network.py --config_file config/config_mbf_student_lfw.py \
        --set train_images=PATH backbone_weights=PATH head_weights=PATH teacher=runs/teacher
    python evaluation/compare.py --methods runs/mbf_student_lfw runs/teacher \
        --target faces:FOLDER --out compared

With so few faces the student starts from layers of the backbone (`head_weights` is the backbone's
file) and keeps the first four.
"""

from utils.config import Augment, Method, Schedule, TrainConfig

config = TrainConfig(
    name="mbf_student_lfw",
    backbone=Method("mobilefacenet"),
    backbone_weights="weights/mbf_y1.pth",
    head=Method("student", output="probability", size=112, fixed=4),
    head_weights="weights/mbf_y1.pth",
    loss=Method("distill", weight=10.0, scale=16.0, margin=0.35),
    teacher="runs/teacher",
    train_images="datasets/lfw_train",
    classes_per_batch=16,
    images_per_class=4,
    schedule=Schedule(
        epochs=10,
        steps_per_epoch=100,
        lr=2e-3,
        drop_at=(5, 7.5, 9),
        drop_factor=0.3,
        weight_decay=2e-2,
        optimizer="adamw",
    ),
    augment=Augment(blur=0.0, occlusion=0.0, rare=0.2, degrade=0.3),
    log_every=20,
)
